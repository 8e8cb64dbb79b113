// The conformance plugin for cases.json, in Go.
package main

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"signalbox/plugin"
	"signalbox/plugin/connections"
	"signalbox/plugin/events"
	"signalbox/plugin/handover"
	"signalbox/plugin/lifecycle"
	"signalbox/plugin/membership"
	"signalbox/plugin/requests"
	"signalbox/plugin/rooms"
	"signalbox/plugin/screening"
	"signalbox/plugin/transformation"
	"signalbox/plugin/validation"
)

var config string

// hits counts messages in memory.
var hits int

func init() {
	lifecycle.OnInit(func(text string) error {
		config = text
		return nil
	})
	validation.Register(validate)
	transformation.Register(transform)
	screening.Register(func(message plugin.Message) (plugin.Outcome, error) {
		if err := validate(message); err != nil {
			return plugin.Outcome{}, err
		}
		return transform(message)
	})
	events.Register(handle, "c.actions", "c.none", "c.many", "c.config", "c.context", "c.store", "c.big", "c.clock", "c.observe",
		"c.fail", "c.loop", "c.hits")
	requests.Register(respond, "c.ask", "c.ask-acts", "c.ask-bad", "c.ask-deep", "c.ask-refused", "c.room", "c.who", "c.history",
		"c.calls", "c.calls-uncaught")
	membership.Register(changed("c.joined"), changed("c.left"))
	handover.Register(save, restore)
	connections.Register(connected, func(plugin.Client, plugin.Disconnection) []plugin.Action { return nil })
	rooms.Register(func(_ plugin.Client, room string) error {
		if room == "secret" {
			return plugin.Reject("secret", "not for you")
		}
		return nil
	})
}

func typed(message plugin.Message) error {
	var value struct {
		Text string `json:"text"`
		N    int32  `json:"n"`
	}
	if err := plugin.Parse(message, &value); err != nil {
		return err
	}
	if value.Text == "bad" {
		return plugin.Reject("bad", "bad")
	}
	return nil
}

func validate(message plugin.Message) error {
	switch message.Type {
	case "c.parse":
		var any any
		return plugin.Parse(message, &any)
	case "c.typed":
		return typed(message)
	case "c.reject":
	default:
		return nil
	}
	var refusal struct {
		Code   string `json:"code"`
		Reason string `json:"reason"`
	}
	if err := plugin.Parse(message, &refusal); err != nil {
		return err
	}
	return plugin.Reject(refusal.Code, refusal.Reason)
}

func transform(message plugin.Message) (plugin.Outcome, error) {
	raw := plugin.Draft{Type: message.Type, To: message.To, Payload: message.Payload}
	var text string
	switch message.Type {
	case "c.echo":
		// Keeps numbers as they are written: a float64 is not exact beyond 2^53.
		decoder := json.NewDecoder(strings.NewReader(message.Payload))
		decoder.UseNumber()
		var value any
		if err := decoder.Decode(&value); err != nil {
			return plugin.Outcome{}, plugin.Reject("invalid_payload", err.Error())
		}
		return plugin.WithPayload(message, value), nil
	case "c.text":
		if err := plugin.Parse(message, &text); err != nil {
			return plugin.Outcome{}, err
		}
		return plugin.WithPayload(message, text+"!"), nil
	case "c.raw":
		return plugin.Changed(raw), nil
	case "c.drop":
		return plugin.Dropped(), nil
	case "c.move":
		if err := plugin.Parse(message, &text); err != nil {
			return plugin.Outcome{}, err
		}
		places := map[string]*plugin.Destination{
			"sender": plugin.Sender(), "user": plugin.User("zoë"), "room": plugin.Room("café"), "everyone": plugin.Everyone(),
		}
		return plugin.Changed(plugin.NewDraft("c.moved", places[text], 1)), nil
	case "c.bad-json":
		raw.Payload = "{"
		return plugin.Changed(raw), nil
	}
	return plugin.Unchanged(), nil
}

func stored() ([]any, error) {
	var found []any
	var problems []error
	keep := func(value any, err error) {
		found = append(found, value)
		problems = append(problems, err)
	}
	problems = append(problems, plugin.Set("k", []byte("value ü"), 0))
	value, _, err := plugin.Get("k")
	keep(string(value), err)
	sum, err := plugin.Increment("n", 5, 0)
	keep(sum, err)
	sum, err = plugin.Increment("n", -2, 60)
	keep(sum, err)
	swapped, err := plugin.CompareAndSwap("k", []byte("value ü"), []byte("x"), 0)
	keep(swapped, err)
	swapped, err = plugin.CompareAndSwap("k", []byte("value ü"), []byte("y"), 0)
	keep(swapped, err)
	problems = append(problems, plugin.Remove("k"))
	if _, there, err := plugin.Get("k"); !there {
		keep(nil, err)
	}
	problems = append(problems, plugin.Set("t", []byte("abc"), 0))
	if _, err := plugin.Increment("t", 1, 0); errors.Is(err, plugin.NotANumber) {
		keep("not-a-number", nil)
	}
	return found, errors.Join(problems...)
}

func handle(message plugin.Message) ([]plugin.Action, error) {
	switch message.Type {
	case "c.actions":
		return []plugin.Action{
			plugin.Deliver(),
			plugin.Send(plugin.NewDraft("c.sent", plugin.User("bob"), 1)),
			plugin.Announce(plugin.NewDraft("c.said", plugin.Everyone(), []float64{1.5})),
			plugin.Join("café"),
			plugin.Leave("café"),
			plugin.Disconnect(4501, "go away"),
		}, nil
	case "c.many":
		actions := make([]plugin.Action, 300)
		for i := range actions {
			actions[i] = plugin.Join("a")
		}
		return actions, nil
	case "c.config":
		return []plugin.Action{plugin.Reply("c.config", json.RawMessage(config))}, nil
	case "c.context":
		client, there := plugin.CurrentClient()
		if !there {
			return []plugin.Action{plugin.Reply("c.context", nil)}, nil
		}
		return []plugin.Action{plugin.Reply("c.context", []any{client.User, json.RawMessage(client.Claims)})}, nil
	case "c.store":
		found, err := stored()
		return []plugin.Action{plugin.Reply("c.store", found)}, err
	case "c.big":
		if err := plugin.Set("big", []byte("9007199254740993"), 0); err != nil {
			return nil, err
		}
		sum, err := plugin.Increment("big", 0, 0)
		return []plugin.Action{plugin.Reply("c.big", strconv.FormatInt(sum, 10))}, err
	case "c.clock":
		return []plugin.Action{plugin.Reply("c.clock", plugin.Now() > 1_700_000_000_000 && plugin.Node() != "")}, nil
	case "c.observe":
		plugin.Count("seen", 2)
		plugin.Observe("size", 1.5)
		plugin.Log(plugin.Info, "seen ü")
	case "c.hits":
		hits++
		return []plugin.Action{plugin.Reply("c.hits", hits)}, nil
	case "c.fail":
		panic("on purpose")
	case "c.loop":
		for {
		}
	}
	return nil, nil
}

func roomError(err error) any {
	name, is := map[error]string{
		plugin.RoomSwitchedOff: "switched-off", plugin.RoomInvalid: "invalid", plugin.RoomTooManyCalls: "too-many-calls",
		plugin.RoomUnavailable: "unavailable",
	}[err]
	if !is {
		return err.Error()
	}
	return name
}

func counted(room string) any {
	count, err := plugin.RoomCount(room)
	if err != nil {
		return roomError(err)
	}
	return count
}

func members(room string) any {
	members, err := plugin.RoomMembers(room)
	if err != nil {
		return roomError(err)
	}
	list := []any{}
	for _, member := range members {
		info := json.RawMessage("null")
		if member.Info != "" {
			info = json.RawMessage(member.Info)
		}
		list = append(list, []any{member.User, member.Connections, info})
	}
	return list
}

func history(room string, before uint64, limit uint32) any {
	messages, err := plugin.RoomHistory(room, before, limit)
	if err != nil {
		return roomError(err)
	}
	list := []any{}
	for _, kept := range messages {
		list = append(list, []any{kept.Offset, kept.Type, kept.Sender, json.RawMessage(kept.Payload), kept.Timestamp})
	}
	return list
}

func calls() []any {
	for answered := 0; ; answered++ {
		if _, err := plugin.RoomCount("café"); err != nil {
			return []any{answered, roomError(err)}
		}
	}
}

func respond(message plugin.Message) (requests.Reply, error) {
	switch message.Type {
	case "c.ask":
		var value any
		err := plugin.Parse(message, &value)
		return requests.NewReply(value), err
	case "c.ask-acts":
		asked := plugin.Reply("c.asked", json.RawMessage(message.Payload))
		return requests.NewReply(map[string]bool{"done": true}, plugin.Deliver(), asked, plugin.Join("café")), nil
	case "c.ask-bad":
		return requests.Reply{Data: "{"}, nil
	case "c.ask-deep":
		return requests.Reply{Data: strings.Repeat("[", 101) + strings.Repeat("]", 101)}, nil
	case "c.ask-refused":
		return requests.Reply{}, plugin.Reject("no_answer", "nö, \"so\" nicht 🙂")
	case "c.calls":
		return requests.NewReply(calls()), nil
	case "c.calls-uncaught":
		for {
			if _, err := plugin.RoomCount("café"); err != nil {
				return requests.Reply{}, err
			}
		}
	case "c.history":
		var asked struct {
			Room   string `json:"room"`
			Before uint64 `json:"before"`
			Limit  uint32 `json:"limit"`
		}
		err := plugin.Parse(message, &asked)
		return requests.NewReply(history(asked.Room, asked.Before, asked.Limit)), err
	}
	var room string
	if err := plugin.Parse(message, &room); err != nil {
		return requests.Reply{}, err
	}
	if message.Type == "c.who" {
		members, err := plugin.RoomMembers(room)
		users := []string{}
		for _, member := range members {
			users = append(users, member.User)
		}
		return requests.NewReply(users), err
	}
	return requests.NewReply([]any{counted(room), members(room), history(room, 0, 100)}), nil
}

func changed(eventType string) membership.Change {
	return func(client plugin.Client, room string, connections uint32) []plugin.Action {
		if client.User == "quiet" {
			return nil
		}
		change := plugin.NewDraft(eventType, plugin.Room(room), []any{client.User, room, connections})
		return []plugin.Action{plugin.Announce(change)}
	}
}

func connected(client plugin.Client) ([]plugin.Action, error) {
	if client.User == "banned" {
		return nil, plugin.Reject("banned", "go away")
	}
	return []plugin.Action{plugin.Join("home:" + client.User)}, nil
}

func save() (handover.Snapshot, error) {
	return handover.Snapshot{Format: 1, Data: []byte(strconv.Itoa(hits))}, nil
}

func restore(snapshot handover.Snapshot) error {
	var err error
	hits, err = strconv.Atoi(string(snapshot.Data))
	return err
}

func main() {}
