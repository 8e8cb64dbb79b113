package client

import (
	"bytes"
	"fmt"
)

// event is a server-sent event with data.
type event struct {
	name string
	data []byte
}

// eventParser reads events from the bytes of a stream, in pieces of any size.
type eventParser struct {
	max  int64
	line []byte
	// afterReturn: the last piece ended with a carriage return, so a line feed at the beginning of the next one ends no line.
	afterReturn bool
	begun       bool
	name        string
	data        []byte
	hasData     bool
}

// feed returns the events that end in this piece. It fails if an event is too large.
func (p *eventParser) feed(piece []byte) ([]event, error) {
	var events []event
	for len(piece) > 0 {
		if p.afterReturn {
			p.afterReturn = false
			if piece[0] == '\n' {
				piece = piece[1:]
				continue
			}
		}
		end := bytes.IndexAny(piece, "\r\n")
		part := piece
		if end >= 0 {
			part = piece[:end]
		}
		if int64(len(p.data)+len(p.line)+len(part)) > p.max {
			return events, fmt.Errorf("an event has more than %d bytes", p.max)
		}
		p.line = append(p.line, part...)
		if end < 0 {
			break
		}
		p.afterReturn = piece[end] == '\r'
		piece = piece[end+1:]
		if ended := p.endLine(); ended != nil {
			events = append(events, *ended)
		}
	}
	return events, nil
}

// endLine returns the event that ends with this line; nil if none does.
func (p *eventParser) endLine() *event {
	line := p.line
	p.line = p.line[:0]
	if !p.begun {
		p.begun = true
		line = bytes.TrimPrefix(line, []byte("\ufeff"))
	}
	if len(line) == 0 {
		return p.endEvent()
	}
	field, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(field) {
	case "data":
		if p.hasData {
			p.data = append(p.data, '\n')
		}
		p.data = append(p.data, value...)
		p.hasData = true
	case "event":
		p.name = string(value)
	}
	return nil
}

func (p *eventParser) endEvent() *event {
	ended := event{p.name, p.data}
	hasData := p.hasData
	p.name, p.data, p.hasData = "", nil, false
	if cap(p.line) > lineKept {
		p.line = nil
	}
	if !hasData {
		return nil
	}
	return &ended
}

// A longer line is not kept for the next one.
const lineKept = 4 << 10
