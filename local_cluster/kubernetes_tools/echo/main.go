// Echo is what the tests of the cluster itself run in pods.
//
//	echo serve ADDRESS   answers every request with the host name
//	echo get URL         prints the answer
//	echo lookup NAME     prints the addresses
//	echo write FILE TEXT writes, and prints what it reads back
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: echo serve ADDRESS | get URL | lookup NAME | write FILE TEXT")
	}
	answer, err := run(os.Args[1], os.Args[2:])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(answer)
}

func run(command string, arguments []string) (string, error) {
	switch command {
	case "serve":
		name, _ := os.Hostname()
		http.HandleFunc("/", func(writer http.ResponseWriter, _ *http.Request) { fmt.Fprint(writer, name) })
		return "", http.ListenAndServe(arguments[0], nil)
	case "get":
		client := http.Client{Timeout: 10 * time.Second}
		response, err := client.Get(arguments[0])
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		return string(body), err
	case "lookup":
		addresses, err := net.LookupHost(arguments[0])
		return strings.Join(addresses, " "), err
	case "write":
		if err := os.WriteFile(arguments[0], []byte(strings.Join(arguments[1:], " ")), 0o600); err != nil {
			return "", err
		}
		content, err := os.ReadFile(arguments[0])
		return string(content), err
	}
	return "", fmt.Errorf("no such command: %s", command)
}
