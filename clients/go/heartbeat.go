package client

import "time"

const (
	// A timer that is this late means that the process was paused.
	pause = 5 * time.Second
	// How long the client waits for a sign of life after a pause.
	pauseTimeout = 5 * time.Second
)

// heartbeat asks for a sign of life after silence, and reports the connection as lost without one. It has one alarm. All of
// its methods need the lock.
type heartbeat struct {
	scheduler
	interval, timeout time.Duration
	ask, lost         func()
	lastHeard         time.Time
	asked             bool
	due               time.Time
	alarm             *alarm
}

// begin starts again: the connection is new, there was a sign of life, or the silence had another reason.
func (h *heartbeat) begin() {
	h.stop()
	h.lastHeard = h.clock.Now()
	h.arm(h.interval)
}

// heard says that something arrived.
func (h *heartbeat) heard() {
	h.lastHeard = h.clock.Now()
	if h.asked {
		h.begin()
	}
}

func (h *heartbeat) stop() {
	h.asked = false
	h.alarm.stop()
}

func (h *heartbeat) arm(delay time.Duration) {
	h.due = h.clock.Now().Add(delay)
	h.alarm = h.after(delay, h.fire)
}

func (h *heartbeat) fire() {
	now := h.clock.Now()
	// The monotonic clock may stand still while a computer sleeps; the time of day, without it, does not.
	late := max(now.Sub(h.due), now.Round(0).Sub(h.due.Round(0)))
	silence := now.Sub(h.lastHeard)
	switch {
	case late > pause:
		// Nothing that was due during the pause says anything about the connection.
		h.question(min(h.timeout, pauseTimeout))
	case h.asked:
		h.stop()
		h.lost()
	case silence >= h.interval:
		h.question(h.timeout)
	default:
		h.arm(h.interval - silence)
	}
}

func (h *heartbeat) question(timeout time.Duration) {
	h.asked = true
	h.ask()
	h.arm(timeout)
}
