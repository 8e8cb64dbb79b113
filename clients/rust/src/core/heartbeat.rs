//! Notices connections that are dead (section 5 of SPEC.md).

use std::time::Duration;

use super::calls::Reply;
use super::link::Link;
use super::{Core, Ending, Moment, Timer};
use crate::frames::OutgoingFrame;

/// A timer that is this late means that the process was paused.
const PAUSE: Duration = Duration::from_secs(5);
/// How long the client waits for a sign of life after a pause.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(5);

impl Core {
    /// Something arrived, or the silence had another reason.
    pub(crate) fn heard(&mut self, now: Moment) {
        self.now = now;
        let Link::Up(connection) = &mut self.link else {
            return;
        };
        connection.heartbeat.heard = now;
        if connection.heartbeat.asked {
            self.begin_heartbeat();
        }
    }

    pub(super) fn begin_heartbeat(&mut self) {
        if let Link::Up(connection) = &mut self.link {
            connection.heartbeat.asked = false;
            let interval = connection.heartbeat.interval;
            self.arm_heartbeat(interval);
        }
    }

    fn arm_heartbeat(&mut self, wait: Duration) {
        if let Link::Up(connection) = &mut self.link {
            let heartbeat = &mut connection.heartbeat;
            self.timers.cancel(&mut heartbeat.alarm);
            heartbeat.due = self.now.plus(wait);
            let at = heartbeat.due.instant;
            heartbeat.alarm = Some(self.timers.set(at, Timer::Heartbeat));
        }
    }

    pub(super) fn check_heartbeat(&mut self) {
        let Link::Up(connection) = &mut self.link else {
            return;
        };
        let heartbeat = &connection.heartbeat;
        let (now, timeout) = (self.now, self.options.heartbeat_timeout);
        let by_day = now.day.duration_since(heartbeat.due.day);
        let late = now
            .instant
            .saturating_duration_since(heartbeat.due.instant)
            .max(by_day.unwrap_or_default());
        let silence = now
            .instant
            .saturating_duration_since(heartbeat.heard.instant);
        if self.outlet.is_full() {
            // The client does not read, so that silence means nothing.
            self.begin_heartbeat();
        } else if late > PAUSE {
            // Nothing that was due during the pause says anything about the connection.
            self.ask_for_life(timeout.min(PAUSE_TIMEOUT));
        } else if heartbeat.asked {
            self.lost(Ending::because("nothing arrived for too long"));
        } else if silence >= heartbeat.interval {
            self.ask_for_life(timeout);
        } else {
            let rest = heartbeat.interval.saturating_sub(silence);
            self.arm_heartbeat(rest);
        }
    }

    fn ask_for_life(&mut self, timeout: Duration) {
        if let Link::Up(connection) = &mut self.link {
            connection.heartbeat.asked = true;
        }
        self.control(OutgoingFrame::about("heartbeat", None), Reply::Nobody);
        self.arm_heartbeat(timeout);
    }
}
