{{- /* The operator's image. */ -}}
{{- define "dragon.image" -}}
{{- $image := .Values.image -}}
{{- if $image.registry }}{{ trimSuffix "/" $image.registry }}/{{ end -}}
{{ $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end -}}
{{- end -}}

{{- /* The image of a part: (list CONTEXT REFERENCE NAME); without a reference, NAME of our registry. */ -}}
{{- define "dragon.partImage" -}}
{{- $context := index . 0 -}}
{{- with index . 1 -}}
{{ . }}
{{- else -}}
{{- with $context.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ index . 2 }}:{{ $context.Chart.AppVersion }}
{{- end -}}
{{- end -}}
