package abi

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
)

// Parameters of the records message and client, flattened in the order of their fields.

// MessageOf creates a Message from its flattened fields.
func MessageOf(idAt, idLen, typeAt, typeLen, senderAt, senderLen, hasTo, toKind, toAt, toLen, payloadAt, payloadLen uint32,
	timestamp uint64) Message {
	Begin()
	message := Message{
		ID: Text(idAt, idLen), Type: Text(typeAt, typeLen), Sender: Text(senderAt, senderLen),
		Payload: Text(payloadAt, payloadLen), Timestamp: timestamp,
	}
	if hasTo != 0 {
		message.To = &Destination{Kind: Kind(toKind)}
		if message.To.Kind == ToUser || message.To.Kind == ToRoom {
			message.To.Name = Text(toAt, toLen)
		}
	}
	return message
}

// ClientOf creates a Client from its flattened fields.
func ClientOf(connAt, connLen, userAt, userLen, claimsAt, claimsLen, addrAt, addrLen uint32, connectedAt uint64) Client {
	Begin()
	return Client{
		Connection: Text(connAt, connLen), User: Text(userAt, userLen), Claims: Text(claimsAt, claimsLen),
		Address: Text(addrAt, addrLen), ConnectedAt: connectedAt,
	}
}

// Refused lays out result<_, rejection>.
func Refused(err error) uint32 {
	area := NewArea(20)
	if err != nil {
		area.refuse(err)
	}
	return area.Address()
}

// Outcomes lays out result<outcome, rejection>.
func Outcomes(outcome Outcome, err error) uint32 {
	area := NewArea(40)
	if err != nil {
		area.refuse(err)
		return area.Address()
	}
	area.Byte(4, byte(outcome.Kind))
	if outcome.Kind == IsChanged {
		area.draft(8, outcome.Draft)
	}
	return area.Address()
}

// Actions lays out result<list<action>, rejection>.
func Actions(actions []Action, err error) uint32 {
	area := NewArea(20)
	if err != nil {
		area.refuse(err)
	} else {
		area.actions(4, actions)
	}
	return area.Address()
}

// Replies lays out result<reply, rejection>.
func Replies(reply Reply, err error) uint32 {
	area := NewArea(20)
	if err != nil {
		area.refuse(err)
	} else {
		area.Text(4, reply.Data)
		area.actions(12, reply.Actions)
	}
	return area.Address()
}

// OnlyActions lays out list<action>.
func OnlyActions(actions []Action) uint32 {
	area := NewArea(8)
	area.actions(0, actions)
	return area.Address()
}

// Texts lays out list<string>.
func Texts(texts []string) uint32 {
	area, list := NewArea(8), NewArea(8*len(texts)+8)
	for i, text := range texts {
		list.Text(8*i, text)
	}
	area.Word(0, list.Address())
	area.Word(4, uint32(len(texts)))
	return area.Address()
}

// Started lays out result<_, string>.
func Started(err error) uint32 {
	area := NewArea(12)
	if err != nil {
		area.Byte(0, 1)
		area.Text(4, err.Error())
	}
	return area.Address()
}

// Saved lays out result<snapshot, string>.
func Saved(snapshot Snapshot, err error) uint32 {
	area := NewArea(16)
	if err != nil {
		area.Byte(0, 1)
		area.Text(4, err.Error())
		return area.Address()
	}
	area.Word(4, snapshot.Format)
	area.Bytes(8, snapshot.Data)
	return area.Address()
}

// refuse writes a rejection. An error that neither is a Rejection nor converts to one panics, which fails the call.
func (a Area) refuse(err error) {
	var rejection *Rejection
	var standsFor interface{ Rejection() *Rejection }
	switch {
	case errors.As(err, &rejection):
	case errors.As(err, &standsFor):
		rejection = standsFor.Rejection()
	default:
		panic(err)
	}
	a.Byte(0, 1)
	a.Text(4, rejection.Code)
	a.Text(12, rejection.Reason)
}

func (a Area) draft(at int, draft Draft) {
	a.Text(at, draft.Type)
	if draft.To != nil {
		a.Byte(at+8, 1)
		a.Byte(at+12, byte(draft.To.Kind))
		a.Text(at+16, draft.To.Name)
	}
	a.Text(at+24, draft.Payload)
}

// sizeOfAction is the size of an action in bytes, including padding.
const sizeOfAction = 36

func (a Area) actions(at int, actions []Action) {
	list := NewArea(sizeOfAction*len(actions) + 8)
	for i, action := range actions {
		place := sizeOfAction * i
		list.Byte(place, byte(action.Kind))
		switch action.Kind {
		case IsSend, IsAnnounce:
			list.draft(place+4, action.Draft)
		case IsJoin, IsLeave:
			list.Text(place+4, action.Room)
		case IsDisconnect:
			list.Short(place+4, action.Disconnection.Code)
			list.Text(place+8, action.Disconnection.Reason)
		}
	}
	a.Word(at, list.Address())
	a.Word(at+4, uint32(len(actions)))
}

// Guard is deferred in each exported function: it logs a panic with its stack, and then fails the call. Go's own output
// about a panic would reach the log in fragments.
func Guard() {
	reason := recover()
	if reason == nil {
		return
	}
	Log(3, fmt.Sprintf("panic: %v", reason))
	for _, line := range strings.Split(strings.TrimSpace(string(debug.Stack())), "\n") {
		Log(3, line)
	}
	exit(1)
}
