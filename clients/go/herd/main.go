// Many clients in one process, for the herd of clients/conformance/README.md.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"signalbox/client"
)

type command struct {
	N       int    `json:"n"`
	Do      string `json:"do"`
	URL     string `json:"url"`
	Clients []struct {
		User  string   `json:"user"`
		Rooms []string `json:"rooms"`
	} `json:"clients"`
}

// runs are numbers in the order in which they came: each run has its first and its last, and each number between is one more
// than the one before.
type runs [][2]int64

func (r *runs) note(number int64) {
	if n := len(*r); n > 0 && (*r)[n-1][1]+1 == number {
		(*r)[n-1][1] = number
	} else {
		*r = append(*r, [2]int64{number, number})
	}
}

type roomReport struct {
	Joined    bool   `json:"joined"`
	Numbers   runs   `json:"numbers"`
	Offsets   runs   `json:"offsets"`
	Recovered []bool `json:"recovered"`
}

// report is what one client has seen.
type report struct {
	User      string                 `json:"user"`
	Attempts  int                    `json:"attempts"`
	Connected []int64                `json:"connected"`
	Waits     []int64                `json:"waits"`
	Errors    []string               `json:"errors"`
	Rooms     map[string]*roomReport `json:"rooms"`
	last      client.State
}

// herd has all clients. mu guards the reports.
type herd struct {
	mu      sync.Mutex
	clients []*client.Client
	reports []*report
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	h := &herd{}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			return err
		}
		if err := h.do(c); err != nil {
			return err
		}
	}
	for _, c := range h.clients {
		c.Close()
	}
	return lines.Err()
}

// do carries out a command, and answers it.
func (h *herd) do(c command) error {
	var reports []*report
	switch c.Do {
	case "open":
		for _, one := range c.Clients {
			if err := h.open(c.URL, one.User, one.Rooms); err != nil {
				return err
			}
		}
	case "report":
		reports = h.reports
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	text, err := json.Marshal(map[string]any{"n": c.N, "ok": reports})
	fmt.Println(string(text))
	return err
}

func (h *herd) open(url, user string, rooms []string) error {
	c, err := client.New(url, client.Options{UserID: user})
	if err != nil {
		return err
	}
	r := &report{User: user, Connected: []int64{}, Waits: []int64{}, Errors: []string{}, Rooms: map[string]*roomReport{}}
	c.OnState(func(change client.StateChange) { h.onState(r, change) })
	c.OnError(func(err *client.Error) { h.failed(r, err) })
	c.Connect()
	for _, name := range rooms {
		room := &roomReport{Numbers: runs{}, Offsets: runs{}, Recovered: []bool{}}
		r.Rooms[name] = room
		h.enter(c.Room(name), r, room)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clients = append(h.clients, c)
	h.reports = append(h.reports, r)
	return nil
}

func (h *herd) onState(r *report, change client.StateChange) {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := r.last
	r.last = change.State
	switch change.State {
	case client.Disconnected:
		if last == client.Connected {
			r.Waits = append(r.Waits, change.RetryIn.Milliseconds())
		}
	case client.Connecting:
		r.Attempts++
	case client.Connected:
		r.Connected = append(r.Connected, time.Now().UnixMilli())
	case client.Closed:
		r.Errors = append(r.Errors, fmt.Sprint("closed with ", change.Code))
	}
}

func (h *herd) failed(r *report, err *client.Error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.Errors = append(r.Errors, err.Code)
}

// enter joins a room, and reports its messages and whether they were recovered.
func (h *herd) enter(room *client.Room, r *report, seen *roomReport) {
	room.On("*", func(message client.Message) {
		var number int64
		err := json.Unmarshal(message.Payload, &number)
		h.mu.Lock()
		defer h.mu.Unlock()
		if err != nil {
			r.Errors = append(r.Errors, err.Error())
		}
		seen.Numbers.note(number)
		seen.Offsets.note(message.Offset)
	})
	room.OnRecovery(func(recovery client.Recovery) {
		h.mu.Lock()
		defer h.mu.Unlock()
		seen.Recovered = append(seen.Recovered, recovery.Recovered)
	})
	room.OnLeft(func(err *client.Error) { h.failed(r, err) })
	go func() {
		// A failure is reported by OnLeft or the state.
		err := room.Join(context.Background(), client.JoinOptions{})
		h.mu.Lock()
		defer h.mu.Unlock()
		seen.Joined = err == nil
	}()
}
