// The memory of 1,000 connected clients: go run ./bench ws://127.0.0.1:8080/ws [COUNT]. The server needs auth.mode = "none".
// Each client joins one room, which needs no rule.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"signalbox/client"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		return fmt.Errorf("name the URL of a server")
	}
	count := 1000
	if len(arguments) > 1 {
		var err error
		if count, err = strconv.Atoi(arguments[1]); err != nil {
			return err
		}
	}
	before, err := resident()
	if err != nil {
		return err
	}
	for number := range count {
		c, err := client.New(arguments[0], client.Options{UserID: fmt.Sprint("user-", number)})
		if err != nil {
			return err
		}
		defer c.Close()
		c.Connect()
		if _, err := c.Join(context.Background(), fmt.Sprint("room-", number), client.JoinOptions{}); err != nil {
			return err
		}
	}
	debug.FreeOSMemory()
	after, err := resident()
	if err != nil {
		return err
	}
	used := float64(after - before)
	fmt.Printf("%d clients, %.1f MiB, %.1f KiB each, whole process %.1f MiB\n",
		count, used/(1<<20), used/float64(count)/1024, float64(after)/(1<<20))
	return nil
}

// resident returns the resident memory of this process, in bytes.
func resident() (int, error) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	return pages * os.Getpagesize(), err
}
