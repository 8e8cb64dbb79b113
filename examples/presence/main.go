// Who is there: tells a room when somebody comes or goes, and answers `presence.list` with everybody.
//
// A user with several connections comes with the first and goes with the last. Somebody whose connection breaks and comes
// back at once is no news: there is one notice of each user in so many seconds.
package main

import (
	"encoding/json"
	"errors"
	"slices"

	"signalbox/plugin"
	"signalbox/plugin/connections"
	"signalbox/plugin/events"
	"signalbox/plugin/lifecycle"
)

// room is where notices go. Everybody who connects is put into it.
const room = "presence"

// listKey is where the names are kept, as a JSON list.
const listKey = "list"

// attempts to change the list before giving up: others may change it at the same time.
const attempts = 8

var config = struct {
	// QuietSeconds is the time after a notice without another one of the same user.
	QuietSeconds uint32 `json:"quiet_seconds"`
	// ListMax is how many names are kept: a value of the store has 64 KiB at most.
	ListMax int `json:"list_max"`
}{QuietSeconds: 10, ListMax: 1000}

func init() {
	lifecycle.OnInit(func(text string) error {
		if err := lifecycle.Config(text, &config); err != nil {
			return err
		}
		if config.QuietSeconds < 1 || config.ListMax < 1 || config.ListMax > 1000 {
			return errors.New("quiet_seconds must be 1 or more, list_max 1 to 1000")
		}
		return nil
	})
	connections.Register(connected, disconnected)
	events.Register(list, "presence.list")
}

func connected(client plugin.Client) ([]plugin.Action, error) {
	actions := []plugin.Action{plugin.Join(room)}
	open, err := plugin.Increment("open:"+client.User, 1, 0)
	if err != nil {
		return nil, refuse(err)
	}
	if open > 1 {
		return actions, nil
	}
	if err := change(func(names []string) []string { return with(names, client.User) }); err != nil {
		return nil, refuse(err)
	}
	return append(actions, notice("presence.joined", client.User)...), nil
}

func disconnected(client plugin.Client, _ plugin.Disconnection) []plugin.Action {
	open, err := plugin.Increment("open:"+client.User, -1, 0)
	if err == nil && open > 0 {
		return nil
	}
	if err == nil {
		err = errors.Join(plugin.Remove("open:"+client.User), change(func(names []string) []string {
			return slices.DeleteFunc(names, func(name string) bool { return name == client.User })
		}))
	}
	if err != nil {
		plugin.Log(plugin.Warn, "%s stays listed: %v", client.User, err)
		return nil
	}
	return notice("presence.left", client.User)
}

// notice tells the room, unless it was told about this user a moment ago.
func notice(eventType, user string) []plugin.Action {
	count, err := plugin.Increment("told:"+user, 1, config.QuietSeconds)
	if err != nil || count > 1 {
		return nil
	}
	return []plugin.Action{plugin.Announce(plugin.NewDraft(eventType, plugin.Room(room), user))}
}

func list(plugin.Message) ([]plugin.Action, error) {
	names, _, err := names()
	if err != nil {
		return nil, refuse(err)
	}
	return []plugin.Action{plugin.Reply("presence.list", names)}, nil
}

// names are the users who are there, and the value that says so, nil for none.
func names() ([]string, []byte, error) {
	value, there, err := plugin.Get(listKey)
	if err != nil || !there {
		return []string{}, nil, err
	}
	var names []string
	err = json.Unmarshal(value, &names)
	return names, value, err
}

// change swaps the list for another one, until nobody was faster.
func change(to func([]string) []string) error {
	for range attempts {
		before, value, err := names()
		if err != nil {
			return err
		}
		after, err := json.Marshal(to(before))
		if err != nil {
			return err
		}
		if swapped, err := plugin.CompareAndSwap(listKey, value, after, 0); err != nil || swapped {
			return err
		}
	}
	return errors.New("the list changes too fast")
}

// with adds a name in order, where there is room for it.
func with(names []string, name string) []string {
	at, there := slices.BinarySearch(names, name)
	if there || len(names) >= config.ListMax {
		return names
	}
	return slices.Insert(names, at, name)
}

func refuse(err error) error { return plugin.Reject("presence_unavailable", err.Error()) }

func main() {}
