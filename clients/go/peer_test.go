package client

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"testing"

	"github.com/coder/websocket"
)

// peer is the server's end of a connection.
type peer struct {
	t      *testing.T
	conn   *websocket.Conn
	path   string
	header http.Header
	// stream is there in place of conn with server-sent events.
	stream *streamEnd
}

type frame map[string]any

func (p *peer) send(eventType string, payload any, extra ...frame) {
	p.t.Helper()
	message := frame{"type": eventType, "payload": payload}
	for _, fields := range extra {
		maps.Copy(message, fields)
	}
	text, err := json.Marshal(message)
	if err != nil {
		p.t.Fatal(err)
	}
	p.sendText(string(text))
}

func (p *peer) sendText(text string) {
	p.t.Helper()
	if p.stream != nil {
		p.stream.send("data: " + text + "\n\n")
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) receive() frame {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	text, err := p.read(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	var received frame
	if err := json.Unmarshal(text, &received); err != nil {
		p.t.Fatal(err)
	}
	return received
}

func (p *peer) read(ctx context.Context) ([]byte, error) {
	if p.stream == nil {
		_, text, err := p.conn.Read(ctx)
		return text, err
	}
	select {
	case text := <-p.stream.frames:
		return text, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *peer) ack(to frame, extra ...frame) {
	p.t.Helper()
	payload := frame{"id": to["id"], "messageId": "m", "status": "handled"}
	for _, fields := range extra {
		maps.Copy(payload, fields)
	}
	p.send("ack", payload)
}

func (p *peer) refuse(to frame, code string, retryable bool) {
	p.t.Helper()
	p.send("error", frame{"id": to["id"], "code": code, "message": "no", "retryable": retryable})
}

func (p *peer) message(payload any, room string, offset int) {
	p.t.Helper()
	fields := frame{"senderId": "bob", "receiverID": "", "timestamp": ""}
	if room != "" {
		fields["room"] = room
	}
	if offset != 0 {
		fields["offset"] = offset
	}
	p.send("note", payload, fields)
}

// answerJoin receives a join and answers it, with a place in a history; nil: there is none.
func (p *peer) answerJoin(place frame) frame {
	p.t.Helper()
	join := p.receive()
	if join["type"] != "join" {
		p.t.Fatalf("not a join: %v", join)
	}
	if place == nil {
		p.ack(join)
	} else {
		p.ack(join, frame{"room": place})
	}
	return join
}

// drop ends the connection as a killed server does.
func (p *peer) drop() {
	if p.stream != nil {
		close(p.stream.dropped)
		return
	}
	_ = p.conn.CloseNow()
}

// closedWith returns the close code of the client; -1 if it sent none.
func (p *peer) closedWith() websocket.StatusCode {
	if p.stream != nil {
		return -1
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		if _, _, err := p.conn.Read(ctx); err != nil {
			return websocket.CloseStatus(err)
		}
	}
}
