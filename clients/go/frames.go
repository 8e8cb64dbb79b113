package client

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Message is a message to the user, to a room, or to everyone.
type Message struct {
	Type string `json:"type"`
	// Payload is JSON.
	Payload json.RawMessage `json:"payload"`
	// Sender is the user who sent it; empty for the platform.
	Sender string `json:"senderId"`
	// Receiver is the user to whom it was sent; empty for a message to a room or to everyone.
	Receiver string `json:"receiverID"`
	// Timestamp is when the server received it, in RFC 3339 with microseconds.
	Timestamp string `json:"timestamp"`
	// Room is the room to which it was sent; empty for others.
	Room string `json:"room"`
	// MessageID is empty if the sender asked for no ack.
	MessageID string `json:"messageId"`
	// Offset is its number in the history of the room or of the user; 0 if it has none.
	Offset int64 `json:"offset"`
}

// Answer is the answer of the server to a call.
type Answer struct {
	// Status is "delivered", "offline", "kept" or "handled".
	Status string
	// MessageID is the ID that the server gave the message.
	MessageID string
	// Data is the JSON with which a plugin answered; nil if there is none.
	Data json.RawMessage
	// Duplicate tells that the server had handled the call before, and repeats its answer.
	Duplicate bool
}

// Page has messages of a room's history, oldest first.
type Page struct {
	Messages []Message `json:"messages"`
	// HasOlder tells that older messages are kept: ask again, with the smallest offset as Before.
	HasOlder bool `json:"hasOlder"`
}

// Recovery tells whether messages were missed while the client was away. If so, reload your state.
type Recovery struct {
	Recovered bool
	// Reason is why they cannot be delivered: "epoch", "expired", "too_many", or "no_history" if the room has none any more.
	Reason string
}

// position is a place in a history: the last message that the application got.
type position struct {
	Epoch  string `json:"epoch"`
	Offset int64  `json:"offset"`
}

// place is a position as the server reports it.
type place struct {
	Epoch     string `json:"epoch"`
	Offset    int64  `json:"offset"`
	Recovered *bool  `json:"recovered"`
	Reason    string `json:"reason"`
	// Count is the number of old messages that follow.
	Count int64 `json:"count"`
}

// start is the position before the messages that follow; nil if there is no history.
func (p *place) start() *position {
	if p == nil || p.Epoch == "" {
		return nil
	}
	return &position{p.Epoch, p.Offset - p.Count}
}

type welcomePayload struct {
	ConnectionID string `json:"connectionId"`
	// SendKey is there with server-sent events.
	SendKey             string `json:"sendKey"`
	HeartbeatIntervalMs int64  `json:"heartbeatIntervalMs"`
	Limits              struct {
		FrameBytesMax int `json:"frameBytesMax"`
	} `json:"limits"`
	User *place `json:"user"`
}

type ackPayload struct {
	ID        string          `json:"id"`
	MessageID string          `json:"messageId"`
	Status    string          `json:"status"`
	Data      json.RawMessage `json:"data"`
	Duplicate bool            `json:"duplicate"`
	Room      *place          `json:"room"`
	History   *Page           `json:"history"`
}

type errorPayload struct {
	ID        string `json:"id"`
	Code      string `json:"code"`
	Message   string `json:"message"`
	Plugin    string `json:"plugin"`
	Retryable bool   `json:"retryable"`
}

type roomPayload struct {
	Room string `json:"room"`
	// User is there instead of a room if it is about the messages to the user.
	User *place `json:"user"`
	place
}

// outgoing is a frame of the client.
type outgoing struct {
	Type     string `json:"type"`
	Payload  any    `json:"payload,omitempty"`
	Receiver string `json:"receiverId,omitempty"`
	Room     string `json:"room,omitempty"`
	ID       string `json:"id"`
	Once     bool   `json:"once,omitempty"`
}

type joinPayload struct {
	Since    *position `json:"since,omitempty"`
	Last     int       `json:"last,omitempty"`
	Presence bool      `json:"presence,omitempty"`
	Token    string    `json:"token,omitempty"`
}

type historyPayload struct {
	Before int64 `json:"before,omitempty"`
	Limit  int   `json:"limit,omitempty"`
}

// encode returns the text of a frame.
func encode(frame any) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(frame); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), nil
}

// decode reads a frame. All of them have the form of a message.
func decode(text []byte) (Message, error) {
	var message Message
	if err := json.Unmarshal(text, &message); err != nil {
		return message, fmt.Errorf("a frame is not one of the protocol: %w", err)
	}
	if message.Type == "" {
		return message, fmt.Errorf("a frame has no type")
	}
	return message, nil
}
