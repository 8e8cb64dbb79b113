// Package rooms is for plugins that decide which clients may join a room.
package rooms

import (
	"signalbox/plugin"
	"signalbox/plugin/internal/abi"
)

var authorize func(plugin.Client, string) error

// Register sets the function that decides about a join: nil accepts it, plugin.Reject refuses it.
func Register(f func(client plugin.Client, room string) error) { authorize = f }

//go:wasmexport signalbox:plugin/rooms@1.0.0#authorize-join
func export(connAt, connLen, userAt, userLen, claimsAt, claimsLen, addrAt, addrLen uint32, connectedAt uint64,
	roomAt, roomLen uint32) uint32 {
	defer abi.Guard()
	client := abi.ClientOf(connAt, connLen, userAt, userLen, claimsAt, claimsLen, addrAt, addrLen, connectedAt)
	return abi.Refused(authorize(client, abi.Text(roomAt, roomLen)))
}
