// Package api is the client of backends for /api of Signalbox.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"signalbox/client"
)

// The largest answer that it reads.
const answerBytesMax = 64 << 20

// API calls a server. It can be used by any goroutine. All methods return *client.Error if the server refuses or does not
// answer; with Retryable the same call may succeed later.
type API struct {
	// HTTP makes the requests; http.DefaultClient if it is nil. Bound their time by a context.
	HTTP *http.Client
	url  string
	key  string
}

// New returns an API for a URL such as http://127.0.0.1:8080, with one of api.keys.
func New(address, key string) (*API, error) {
	parsed, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	if parsed.Scheme != "http" && parsed.Scheme != "https" {
		return nil, errors.New("the URL must begin with http:// or https://")
	}
	return &API{url: strings.TrimRight(address, "/"), key: key}, nil
}

// Message is a message of a backend. Give one of To, Users, Room, Rooms and Everyone, or none for a type that a plugin handles.
type Message struct {
	Type     string   `json:"type"`
	Payload  any      `json:"payload"`
	To       string   `json:"receiverId,omitempty"`
	Users    []string `json:"receiverIds,omitempty"`
	Room     string   `json:"room,omitempty"`
	Rooms    []string `json:"rooms,omitempty"`
	Everyone bool     `json:"everyone,omitempty"`
	// Sender is the user in whose name it is sent; empty: the platform.
	Sender string `json:"senderId,omitempty"`
	// Raw makes it bypass the plugins.
	Raw bool `json:"raw,omitempty"`
}

// Sent tells what became of a message to one receiver.
type Sent struct {
	// Status is "delivered", "offline", "kept" or "handled"; empty if it failed.
	Status    string
	MessageID string
	// Data is the JSON with which a plugin answered; nil if there is none.
	Data json.RawMessage
	// Duplicate tells that the server repeats an earlier answer.
	Duplicate bool
	// User or Room is the receiver, if the message has several.
	User, Room string
	// Err is why it failed, if the message is one of several or has several receivers; nil if it did not.
	Err *client.Error
}

// Position is a place in the history of a room.
type Position struct {
	Epoch  string `json:"epoch"`
	Offset int64  `json:"offset"`
}

// User has the connections of a user.
type User struct {
	Online      bool     `json:"online"`
	Connections int      `json:"connections"`
	Nodes       []string `json:"nodes"`
	// Unanswered are nodes that did not answer, whose connections are not counted.
	Unanswered []string `json:"unanswered"`
}

// Disconnect tells how to close the connections of a user. All fields are optional.
type Disconnect struct {
	// Code is the close code, 4000 to 4999.
	Code   int    `json:"code,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Block keeps the user out for a time such as "10m".
	Block string `json:"block,omitempty"`
}

// Disconnected is the result of a disconnect.
type Disconnected struct {
	Connections int `json:"connections"`
	// BlockedUntil is in seconds since 1970; 0 without a block.
	BlockedUntil int64    `json:"blockedUntil"`
	Unanswered   []string `json:"unanswered"`
}

// RoomChange has the connections that joined or left a room.
type RoomChange struct {
	Connections int      `json:"connections"`
	Failed      int      `json:"failed"`
	Unanswered  []string `json:"unanswered"`
}

// Room has the connections in a room, and the end of its history; nil if it has none.
type Room struct {
	Connections int       `json:"connections"`
	Nodes       []string  `json:"nodes"`
	History     *Position `json:"history"`
	Unanswered  []string  `json:"unanswered"`
}

// Member is a user in a room.
type Member struct {
	User        string          `json:"userId"`
	Connections int             `json:"connections"`
	Since       time.Time       `json:"since"`
	Info        json.RawMessage `json:"info"`
}

// Members are the users in a room; Total also counts those that are not listed.
type Members struct {
	Total   int      `json:"total"`
	Members []Member `json:"members"`
}

// Revocation names the tokens to revoke: one by its JTI, or those of a user. The other fields are optional, in seconds since 1970.
type Revocation struct {
	JTI          string `json:"jti,omitempty"`
	User         string `json:"user,omitempty"`
	IssuedBefore int64  `json:"issuedBefore,omitempty"`
	Until        int64  `json:"until,omitempty"`
}

// Send sends a message. The result has an entry for each of its receivers, or one. An idempotency key that is not empty makes it
// safe to repeat a call that may have had an effect.
func (a *API) Send(ctx context.Context, message Message, idempotencyKey string) ([]Sent, error) {
	var answer sentToAll
	if err := a.call(ctx, http.MethodPost, "/api/messages", message, idempotencyKey, &answer); err != nil {
		return nil, err
	}
	return answer.all(), nil
}

// Batch sends messages one after another. A failed one has Err in its entry, and does not stop the others.
func (a *API) Batch(ctx context.Context, messages []Message, idempotencyKey string) ([][]Sent, error) {
	var answer struct{ Results []sentToAll }
	body := map[string]any{"messages": messages}
	if err := a.call(ctx, http.MethodPost, "/api/batch", body, idempotencyKey, &answer); err != nil {
		return nil, err
	}
	sent := make([][]Sent, 0, len(answer.Results))
	for _, result := range answer.Results {
		sent = append(sent, result.all())
	}
	return sent, nil
}

// User finds out where a user is connected.
func (a *API) User(ctx context.Context, user string) (User, error) {
	return get[User](ctx, a, "/api/users/"+url.PathEscape(user))
}

// Online returns those of the users that are online.
func (a *API) Online(ctx context.Context, users []string) ([]string, error) {
	var answer struct{ Online []string }
	err := a.call(ctx, http.MethodPost, "/api/users/online", map[string]any{"users": users}, "", &answer)
	return answer.Online, err
}

// Disconnect closes all connections of a user.
func (a *API) Disconnect(ctx context.Context, user string, how Disconnect) (Disconnected, error) {
	var answer Disconnected
	err := a.call(ctx, http.MethodPost, "/api/users/"+url.PathEscape(user)+"/disconnect", how, "", &answer)
	return answer, err
}

// AddToRoom makes all connections of a user members of a room.
func (a *API) AddToRoom(ctx context.Context, room, user string) (RoomChange, error) {
	return a.member(ctx, http.MethodPut, room, user)
}

// RemoveFromRoom ends the membership of all connections of a user.
func (a *API) RemoveFromRoom(ctx context.Context, room, user string) (RoomChange, error) {
	return a.member(ctx, http.MethodDelete, room, user)
}

func (a *API) member(ctx context.Context, method, room, user string) (RoomChange, error) {
	var answer RoomChange
	path := "/api/rooms/" + url.PathEscape(room) + "/members/" + url.PathEscape(user)
	err := a.call(ctx, method, path, nil, "", &answer)
	return answer, err
}

// Room counts the members of a room.
func (a *API) Room(ctx context.Context, room string) (Room, error) {
	return get[Room](ctx, a, "/api/rooms/"+url.PathEscape(room))
}

// Members returns the users in a room with presence.
func (a *API) Members(ctx context.Context, room string) (Members, error) {
	return get[Members](ctx, a, "/api/rooms/"+url.PathEscape(room)+"/members")
}

// History returns messages of a room with a history: the newest ones, or those before an offset. before and limit may be 0.
func (a *API) History(ctx context.Context, room string, before int64, limit int) (client.Page, error) {
	query := url.Values{}
	if before > 0 {
		query.Set("before", strconv.FormatInt(before, 10))
	}
	if limit > 0 {
		query.Set("limit", strconv.Itoa(limit))
	}
	path := "/api/rooms/" + url.PathEscape(room) + "/history"
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return get[client.Page](ctx, a, path)
}

// Revoke revokes tokens, and returns until when.
func (a *API) Revoke(ctx context.Context, which Revocation) (time.Time, error) {
	var answer struct{ Until int64 }
	err := a.call(ctx, http.MethodPost, "/api/tokens/revoke", which, "", &answer)
	return time.Unix(answer.Until, 0), err
}

func get[T any](ctx context.Context, a *API, path string) (T, error) {
	var answer T
	err := a.call(ctx, http.MethodGet, path, nil, "", &answer)
	return answer, err
}

func (a *API) call(ctx context.Context, method, path string, body any, idempotencyKey string, answer any) error {
	request, err := a.request(ctx, method, path, body, idempotencyKey)
	if err != nil {
		return err
	}
	doer := a.HTTP
	if doer == nil {
		doer = http.DefaultClient
	}
	response, err := doer.Do(request)
	if err != nil {
		return lost(ctx, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	if err != nil {
		return lost(ctx, err)
	}
	if response.StatusCode != http.StatusOK {
		return refused(response.StatusCode, text)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return &client.Error{Code: client.CodeRefused, Message: "the answer is not JSON: " + err.Error(), Status: response.StatusCode}
	}
	return nil
}

func (a *API) request(ctx context.Context, method, path string, body any, idempotencyKey string) (*http.Request, error) {
	var text io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		text = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, a.url+path, text)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+a.key)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if idempotencyKey != "" {
		request.Header.Set("Idempotency-Key", idempotencyKey)
	}
	return request, nil
}

func lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return &client.Error{Code: client.CodeConnectionLost, Message: "no answer from the server: " + err.Error(), Retryable: true}
}

type wireError struct {
	Code, Message, Plugin string
	Retryable             bool
}

func (w *wireError) toError(status int) *client.Error {
	if w == nil {
		return nil
	}
	return &client.Error{Code: w.Code, Message: w.Message, Plugin: w.Plugin, Retryable: w.Retryable, Status: status}
}

func refused(status int, text []byte) error {
	var answer struct{ Error *wireError }
	if json.Unmarshal(text, &answer) == nil && answer.Error != nil {
		return answer.Error.toError(status)
	}
	retryable := status == 408 || status == 429 || status >= 502 && status <= 504
	return &client.Error{Code: client.CodeRefused, Message: fmt.Sprintf("HTTP %d", status), Status: status, Retryable: retryable}
}

type sentToOne struct {
	Status, MessageID string
	Data              json.RawMessage
	Duplicate         bool
	ReceiverID, Room  string
	Error             *wireError
}

type sentToAll struct {
	sentToOne
	Results *[]sentToOne
}

func (s sentToAll) all() []Sent {
	each := []sentToOne{s.sentToOne}
	if s.Results != nil {
		each = *s.Results
	}
	sent := make([]Sent, 0, len(each))
	for _, one := range each {
		sent = append(sent, Sent{one.Status, one.MessageID, one.Data, one.Duplicate, one.ReceiverID, one.Room, one.Error.toError(0)})
	}
	return sent
}
