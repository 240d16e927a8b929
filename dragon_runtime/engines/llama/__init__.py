"""The language model in this process, through llama.cpp."""
