// Who is there: tells a room when somebody comes or goes, and answers `presence.list` with everybody.
//
// A user with several connections comes with the first and goes with the last. Somebody whose connection breaks and comes
// back at once is no news: there is one notice of each user in so many seconds. Clients show that they are there by
// `presence.here`; whoever does not is gone, as are all on a node that was killed.
package main

import (
	"errors"

	"presence/roster"

	"signalbox/plugin"
	"signalbox/plugin/connections"
	"signalbox/plugin/events"
	"signalbox/plugin/lifecycle"
)

// room is where notices go. Everybody who connects is put into it.
const room = "presence"

// rosterKey is where it is kept who is there.
const rosterKey = "roster"

// attempts to change the roster before giving up: others may change it at the same time.
const attempts = 8

// goneMax is of how many users whose time is over one call tells: each takes an operation of the store.
const goneMax = 8

var config = struct {
	// QuietSeconds is the time after a notice without another one of the same user.
	QuietSeconds uint32 `json:"quiet_seconds"`
	// LeaseSeconds is how long a sign of life counts.
	LeaseSeconds uint32 `json:"lease_seconds"`
	// ListMax is how many names are kept: a value of the store has 64 KiB at most.
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

// changed is what became of the roster: whether a user was and is there, and who else is no longer.
type changed struct {
	before, after bool
	gone          []string
}

// change changes the roster, until nobody was faster. Whoever does it also takes out those whose time is over.
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

// left are the notices of those whose time was over, save of the user that the call is about.
func left(gone []string, user string) []plugin.Action {
	var notices []plugin.Action
	for _, name := range gone {
		if name != user {
			notices = append(notices, notice("presence.left", name)...)
		}
	}
	return notices
}

// notice tells the room, unless it was told about this user a moment ago.
func notice(eventType, user string) []plugin.Action {
	count, err := plugin.Increment("told:"+user, 1, config.QuietSeconds)
	if err != nil || count > 1 {
		return nil
	}
	return []plugin.Action{plugin.Announce(plugin.NewDraft(eventType, plugin.Room(room), user))}
}

// refuse says what a client may know of an error.
func refuse(err error) error {
	if err == nil {
		return nil
	}
	plugin.Log(plugin.Warn, "%v", err)
	return plugin.Reject("presence_unavailable", "who is there is not known now; try again")
}

func main() {}
