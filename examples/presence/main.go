// Presence tracks which users are online. It notifies a room when a user joins or leaves, and answers `presence.list`
// with all names.
//
// A user joins with the first connection and leaves with the last. There is at most one notice about a user in
// `quiet_seconds`, so a connection that keeps breaking does not flood the room. Clients renew their entry with
// `presence.here`. Entries that are not renewed expire, and so do those of a killed node.
package main

import (
	"errors"

	"presence/roster"

	"signalbox/plugin"
	"signalbox/plugin/connections"
	"signalbox/plugin/events"
	"signalbox/plugin/lifecycle"
)

// room gets the notices. Every client that connects joins it.
const room = "presence"

// rosterKey is the key of the roster in the store.
const rosterKey = "roster"

// attempts is how often a change of the roster is tried: other calls may change it at the same time.
const attempts = 8

// goneMax is how many expired users one call reports: each takes a store operation.
const goneMax = 8

var config = struct {
	// QuietSeconds is the time after a notice in which there is no other one about the same user.
	QuietSeconds uint32 `json:"quiet_seconds"`
	// LeaseSeconds is how long an entry lasts after it was renewed.
	LeaseSeconds uint32 `json:"lease_seconds"`
	// ListMax is how many users are listed: a value in the store has at most 64 KiB.
	ListMax int `json:"list_max"`
}{QuietSeconds: 10, LeaseSeconds: 60, ListMax: 1000}

func init() {
	lifecycle.OnInit(func(text string) error {
		if err := lifecycle.Config(text, &config); err != nil {
			return err
		}
		if config.QuietSeconds < 1 || config.LeaseSeconds < 1 || config.ListMax < 1 || config.ListMax > 1000 {
			return errors.New("quiet_seconds and lease_seconds must be 1 or more, list_max 1 to 1000")
		}
		return nil
	})
	connections.Register(connected, disconnected)
	events.Register(handle, "presence.here", "presence.list")
}

func connected(client plugin.Client) ([]plugin.Action, error) {
	changed, err := change(client.User, func(who roster.Roster, until uint64) {
		who.Came(client.User, plugin.Node(), until, config.ListMax)
	})
	if err != nil {
		return nil, refuse(err)
	}
	actions := append([]plugin.Action{plugin.Join(room)}, left(changed.gone, client.User)...)
	if !changed.before {
		actions = append(actions, notice("presence.joined", client.User)...)
	}
	return actions, nil
}

func disconnected(client plugin.Client, _ plugin.Disconnection) []plugin.Action {
	changed, err := change(client.User, func(who roster.Roster, _ uint64) {
		who.Went(client.User, plugin.Node())
	})
	if err != nil {
		plugin.Log(plugin.Warn, "%s stays listed for %d s: %v", client.User, config.LeaseSeconds, err)
		return nil
	}
	actions := left(changed.gone, client.User)
	if !changed.after {
		actions = append(actions, notice("presence.left", client.User)...)
	}
	return actions
}

func handle(message plugin.Message) ([]plugin.Action, error) {
	if message.Type == "presence.list" {
		return list()
	}
	client, there := plugin.CurrentClient()
	if !there {
		return nil, plugin.Reject("no_connection", "this is for clients")
	}
	changed, err := change(client.User, func(who roster.Roster, until uint64) {
		who.Seen(client.User, plugin.Node(), until, config.ListMax)
	})
	if err != nil {
		return nil, refuse(err)
	}
	actions := left(changed.gone, client.User)
	if changed.after && !changed.before {
		actions = append(actions, notice("presence.joined", client.User)...)
	}
	return actions, nil
}

func list() ([]plugin.Action, error) {
	value, _, err := plugin.Get(rosterKey)
	if err != nil {
		return nil, refuse(err)
	}
	who, err := roster.Parse(value)
	return []plugin.Action{plugin.Reply("presence.list", who.Names(plugin.Now()))}, refuse(err)
}

// changed is the result of a change: whether the user was online before and is online after it, and which users have
// expired.
type changed struct {
	before, after bool
	gone          []string
}

// change changes the roster and removes expired users. It retries if another call has changed the roster at the same
// time.
func change(user string, to func(who roster.Roster, until uint64)) (changed, error) {
	for range attempts {
		value, _, err := plugin.Get(rosterKey)
		if err != nil {
			return changed{}, err
		}
		who, err := roster.Parse(value)
		if err != nil {
			return changed{}, err
		}
		now := plugin.Now()
		did := changed{before: who.There(user, now)}
		to(who, now+uint64(config.LeaseSeconds)*1000)
		did.gone, did.after = who.Expire(now, goneMax), who.There(user, now)
		after, err := who.Value()
		if err != nil {
			return changed{}, err
		}
		if swapped, err := plugin.CompareAndSwap(rosterKey, value, after, 0); err != nil || swapped {
			return did, err
		}
	}
	return changed{}, errors.New("the roster changes too fast")
}

// left returns the notices about expired users, except the user that the call is about.
func left(gone []string, user string) []plugin.Action {
	var notices []plugin.Action
	for _, name := range gone {
		if name != user {
			notices = append(notices, notice("presence.left", name)...)
		}
	}
	return notices
}

// notice returns a notice to the room, or none if there was one about this user within QuietSeconds.
func notice(eventType, user string) []plugin.Action {
	count, err := plugin.Increment("told:"+user, 1, config.QuietSeconds)
	if err != nil || count > 1 {
		return nil
	}
	return []plugin.Action{plugin.Announce(plugin.NewDraft(eventType, plugin.Room(room), user))}
}

// refuse logs an error and returns a refusal without its details.
func refuse(err error) error {
	if err == nil {
		return nil
	}
	plugin.Log(plugin.Warn, "%v", err)
	return plugin.Reject("presence_unavailable", "who is there is not known now; try again")
}

func main() {}
