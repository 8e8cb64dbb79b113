// Package handover is for plugins with instances = "single" that carry their memory over to the next version.
package handover

import "signalbox/plugin/internal/abi"

// Snapshot is the memory of an instance, in a format that the plugin defines.
type Snapshot = abi.Snapshot

var (
	save    = func() (Snapshot, error) { return Snapshot{}, nil }
	restore = func(Snapshot) error { return nil }
)

// Register sets the function that saves the memory of the old version, called while no other call is in progress, and
// the function that restores it in the new version, called after init and before any message. An error leaves the old
// version live.
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
