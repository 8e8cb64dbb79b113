//! Histories in Redis: a hash with the epoch and the number of the last message, and a stream with the messages.
//!
//! The ID of an entry of the stream is the number of its message. Its one field has the epoch as name, and the frame without
//! number as value. So a reader needs no transaction: it sees whether entries belong to the epoch that it read.

mod answers;
mod reads;
mod scripts;

use std::sync::Arc;

use redis::Cmd;
use signalbox_protocol::{Epoch, Frame, Position};
use signalbox_redis_client::{Commands, Unavailable};
use signalbox_telemetry::trace::Trace;
use tokio::time::timeout;
use tracing::debug;

use self::{
    reads::{ReadKey, SharedReads, WantedRead},
    scripts::{HistoryScripts, millis},
};
use super::{
    RedisBroker,
    keys::{KeyNames, RouteName},
    outgoing::Outgoing,
    publish::{LineBefore, PublishedMessage},
};
use crate::{
    AppendKind, AppendOnce, Appended, BrokerError, HistoryName, HistoryPage, HistoryQuery,
    OwnedHistoryName, Retention,
};

/// The most positions that are read in one pipeline.
const POSITIONS_BATCH: usize = 256;

/// How often a read is tried: histories may be created, or begin another epoch, while they are read.
const READ_ATTEMPTS: u32 = 4;

/// The histories of rooms and users.
pub(super) struct RedisHistories {
    commands: Commands,
    keys: Arc<KeyNames>,
    outgoing: Arc<Outgoing>,
    scripts: HistoryScripts,
    reads: SharedReads,
}

impl RedisHistories {
    pub(super) fn new(commands: Commands, keys: Arc<KeyNames>, outgoing: Arc<Outgoing>) -> Self {
        Self {
            scripts: HistoryScripts::new(commands.clone(), keys.clone()),
            reads: SharedReads::default(),
            commands,
            keys,
            outgoing,
        }
    }

    /// Appends `frame` once or not at all. Returns the position, and whether it was appended. After an error it may have been.
    async fn append(
        &self,
        name: HistoryName<'_>,
        frame: &Frame,
        retention: Retention,
        once: Option<AppendOnce<'_>>,
    ) -> Result<(Position, AppendKind), Unavailable> {
        let _place = self.outgoing.admit(frame.len()).await?;
        let Some(once) = once else {
            let position = self.scripts.append(name, frame, retention).await?;
            return Ok((position, AppendKind::New));
        };
        let append = self.scripts.append_once(name, frame, retention, once);
        let (position, found) = append.await?;
        let Some(entries) = found else {
            return Ok((position, AppendKind::New));
        };
        let mut first = answers::messages(entries, &position.epoch, name).into_iter();
        let first = first.next().map(|kept| kept.frame);
        let first = first.map(|frame| frame.without_offset(position.offset));
        Ok((position, AppendKind::Repetition(first)))
    }

    /// Reads messages and the position, and creates the history if there is none. Callers that come while a read is under way share
    /// the next one.
    pub(super) async fn read(
        self: &Arc<Self>,
        name: HistoryName<'_>,
        query: HistoryQuery,
        retention: Retention,
    ) -> Result<HistoryPage, Unavailable> {
        let wanted = WantedRead {
            query,
            retention,
            creates: true,
        };
        let page = self.share(name, wanted).await?;
        page.ok_or_else(|| Unavailable::new("the history was not created"))
    }

    /// Reads like [`RedisHistories::read`], and creates nothing.
    pub(super) async fn find(
        self: &Arc<Self>,
        name: HistoryName<'_>,
        query: HistoryQuery,
        retention: Retention,
    ) -> Result<Option<HistoryPage>, Unavailable> {
        let wanted = WantedRead {
            query,
            retention,
            creates: false,
        };
        self.share(name, wanted).await
    }

    async fn share(
        self: &Arc<Self>,
        name: HistoryName<'_>,
        wanted: WantedRead,
    ) -> Result<Option<HistoryPage>, Unavailable> {
        let query = wanted.query;
        let key = ReadKey {
            name: name.into(),
            before: query.before,
        };
        let (page, is_first) = self.reads.join(&key, wanted);
        if is_first {
            // In a task: others need the read even if this caller goes away.
            tokio::spawn(self.clone().serve(key));
        }
        let page = timeout(self.commands.timeout(), page.wait()).await;
        let late = |_| Unavailable::new("the history was not read in time");
        let page = page.map_err(late)??;
        Ok(page.map(|page| reads::slice(&page, query)))
    }

    /// Makes reads until nobody waits for one any more.
    async fn serve(self: Arc<Self>, key: ReadKey) {
        while let Some(read) = self.reads.begin(&key) {
            let page = self.read_now(key.name.borrowed(), read.wanted).await;
            read.finish(page.map(|page| page.map(Arc::new)));
        }
    }

    /// Reads once, or a few times if the history changes meanwhile or is created.
    async fn read_now(
        &self,
        name: HistoryName<'_>,
        wanted: WantedRead,
    ) -> Result<Option<HistoryPage>, Unavailable> {
        let WantedRead {
            query,
            retention,
            creates,
        } = wanted;
        let mut attempt = 1;
        loop {
            let commands = self.read_commands(name, query, retention);
            let mut answers = self.commands.run_all(commands).await?.into_iter();
            let head = answers.next().unwrap_or_default();
            let entries = answers::entries(answers.next().unwrap_or_default())?;
            let is_last = attempt == READ_ATTEMPTS;
            match answers::position(head) {
                Some(position) if is_last || answers::are_of(&position, entries.first(), query) => {
                    let messages = answers::messages(entries, &position.epoch, name);
                    return Ok(Some(HistoryPage { position, messages }));
                }
                None if !creates => return Ok(None),
                None if is_last => {
                    return Err(Unavailable::new(
                        "the history vanishes as soon as it is created",
                    ));
                }
                // The history changed between the two commands.
                Some(_) => {}
                None => {
                    let position = self.scripts.open(name, retention).await?;
                    if position.offset == 0 {
                        let messages = Vec::new();
                        return Ok(Some(HistoryPage { position, messages }));
                    }
                }
            }
            attempt += 1;
        }
    }

    /// The commands that read the position, then the messages, newest first, and that keep the position for longer.
    fn read_commands(
        &self,
        name: HistoryName<'_>,
        query: HistoryQuery,
        retention: Retention,
    ) -> Vec<Cmd> {
        let (head, log) = (self.keys.history_head(name), self.keys.history_log(name));
        // Exclusive bounds need Redis 6.2.
        let end = match query.before {
            Some(before) => format!("{}-0", before.saturating_sub(1)),
            None => "+".to_owned(),
        };
        let mut messages = redis::cmd("XREVRANGE");
        messages
            .arg(log)
            .arg(end)
            .arg(format!("{}-0", query.after.saturating_add(1)))
            .arg("COUNT")
            .arg(i64::try_from(query.limit).unwrap_or(i64::MAX));
        let mut keep = redis::cmd("PEXPIRE");
        keep.arg(&head).arg(millis(retention.position_time()));
        vec![read_head(head), messages, keep]
    }

    /// The position of each history, in the same order.
    pub(super) async fn positions(
        &self,
        names: &[OwnedHistoryName],
    ) -> Result<Vec<Option<Position>>, Unavailable> {
        let mut positions = Vec::with_capacity(names.len());
        for batch in names.chunks(POSITIONS_BATCH) {
            let names = batch.iter().map(OwnedHistoryName::borrowed);
            let heads = names.map(|name| self.keys.history_head(name));
            let commands = heads.map(read_head).collect();
            let answers = self.commands.run_all(commands).await?;
            positions.extend(answers.into_iter().map(answers::position));
        }
        Ok(positions)
    }

    /// Begins another epoch, if the current one is `epoch`.
    pub(super) async fn reset(
        &self,
        name: HistoryName<'_>,
        epoch: &Epoch,
        retention: Retention,
    ) -> Result<(), Unavailable> {
        self.scripts.reset(name, epoch, retention).await
    }
}

impl RedisBroker {
    /// Appends a message and gives it to all nodes that hold its receivers. If it cannot be published, those nodes find it in
    /// the history. A repetition has another time and ID, so the message that is in the history is given in its place.
    pub(super) async fn append_and_publish(
        &self,
        name: HistoryName<'_>,
        frame: &Frame,
        retention: Retention,
        once: Option<AppendOnce<'_>>,
        trace: Trace<'_>,
    ) -> Result<Appended, BrokerError> {
        let (position, kind) = self.histories.append(name, frame, retention, once).await?;
        let frame = match &kind {
            AppendKind::New => frame,
            AppendKind::Repetition(Some(first)) => first,
            AppendKind::Repetition(None) => {
                return Ok(Appended {
                    kind,
                    position,
                    connections: 0,
                    nodes: 0,
                });
            }
        };
        let numbered = frame.with_offset(position.offset);
        let connections = self.node.deliver_kept(name, &position, &numbered);
        let route = match name {
            HistoryName::Room(room) => RouteName::Room(room),
            HistoryName::User(user) => RouteName::User(user),
        };
        let message = PublishedMessage {
            name: route,
            frame,
            line: LineBefore::Position(&position),
            trace,
        };
        let nodes = self.publish_to(message).await.unwrap_or_else(|error| {
            debug!(%error, %name, "a message is in the history, and was not published");
            0
        });
        Ok(Appended {
            kind,
            position,
            connections,
            nodes,
        })
    }
}

fn read_head(key: String) -> Cmd {
    let mut command = redis::cmd("HMGET");
    command.arg(key).arg("e").arg("o");
    command
}
