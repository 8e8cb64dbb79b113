// Package handover is for plugins with instances = "single", which carry their memory over to the next version.
package handover

import "signalbox/plugin/internal/abi"

// Snapshot is the memory of an instance, in a form of the plugin's own.
type Snapshot = abi.Snapshot

var (
	save    = func() (Snapshot, error) { return Snapshot{}, nil }
	restore = func(Snapshot) error { return nil }
)

// Register says how the old version saves its memory, with no message under way, and how the new one takes it, after its
// init and before any message. An error leaves the old version live.
func Register(saved func() (Snapshot, error), restored func(Snapshot) error) {
	save, restore = saved, restored
}

//go:wasmexport signalbox:plugin/handover@1.0.0#save
func exportSave() uint32 {
	defer abi.Guard()
	abi.Begin()
	return abi.Saved(save())
}

//go:wasmexport signalbox:plugin/handover@1.0.0#restore
func exportRestore(format, dataAt, dataLen uint32) uint32 {
	defer abi.Guard()
	abi.Begin()
	return abi.Started(restore(Snapshot{Format: format, Data: abi.Bytes(dataAt, dataLen)}))
}
