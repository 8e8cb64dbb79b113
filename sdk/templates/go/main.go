// A plugin with a validator, a transformer and a custom event type. The functions of the server are in sdk/server.go,
// the types and helpers in sdk/plugin.go.
package main

import (
	"strings"
	"unicode/utf8"

	"signalbox/plugin"
	"signalbox/plugin/events"
	"signalbox/plugin/transformation"
	"signalbox/plugin/validation"
)

// The component exports the interfaces whose packages are imported above.
func init() {
	validation.Register(validate)
	transformation.Register(transform)
	events.Register(hello, "my-plugin.hello")
}

// validate is called first. A refusal is sent to the sender, and the message goes no further.
func validate(message plugin.Message) error {
	if message.Type != "note" {
		return nil
	}
	var note string
	if err := plugin.Parse(message, &note); err != nil {
		return err
	}
	if utf8.RuneCountInString(note) > 280 {
		return plugin.Reject("too_long", "a note has at most 280 characters")
	}
	return nil
}

// transform is called next. Return "unchanged" if nothing changes: that is the fastest answer.
func transform(message plugin.Message) (plugin.Outcome, error) {
	var note string
	if message.Type != "note" || plugin.Parse(message, &note) != nil || !strings.Contains(note, ":)") {
		return plugin.Unchanged(), nil
	}
	return plugin.WithPayload(message, strings.ReplaceAll(note, ":)", "🙂")), nil
}

// hello answers the event type that is registered above, only to the sender.
func hello(message plugin.Message) ([]plugin.Action, error) {
	return []plugin.Action{plugin.Reply("my-plugin.greeting", "Hello, "+message.Sender)}, nil
}

func main() {}
