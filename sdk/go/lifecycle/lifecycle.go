// Package lifecycle is for plugins that have a configuration, or that test themselves before they go live.
package lifecycle

import (
	"fmt"

	"signalbox/plugin/internal/abi"
	"signalbox/plugin/internal/strictjson"
)

var (
	start    = func(string) error { return nil }
	selfTest = func() error { return nil }
)

// OnInit sets the function that runs first in each instance, with the plugin's config as JSON text. An error keeps the
// version from going live.
func OnInit(f func(config string) error) { start = f }

// OnSelfTest sets the function that tests each version before it goes live. An error keeps the version from going live.
func OnSelfTest(f func() error) { selfTest = f }

// Config reads the config into the value that into points to, and refuses keys that the value does not have.
func Config(config string, into any) error {
	if err := strictjson.ParseKnown(config, into); err != nil {
		return fmt.Errorf("config: it %w", err)
	}
	return nil
}

//go:wasmexport signalbox:plugin/lifecycle@1.0.0#init
func exportInit(configAt, configLen uint32) uint32 {
	defer abi.Guard()
	abi.Begin()
	return abi.Started(start(abi.Text(configAt, configLen)))
}

//go:wasmexport signalbox:plugin/lifecycle@1.0.0#self-test
func exportSelfTest() uint32 {
	defer abi.Guard()
	abi.Begin()
	return abi.Started(selfTest())
}
