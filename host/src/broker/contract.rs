//! The suite that every broker passes. A broker joins it with one line at the end: how to make a cluster of it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use super::{Broker, LocalNode, MemoryBroker, MemoryHub, Target};
use crate::protocol::Frame;

/// A node that writes down what it is told to deliver.
#[derive(Default)]
struct Recorder {
    users: Mutex<HashSet<String>>,
    rooms: Mutex<HashSet<String>>,
    got: Mutex<HashMap<String, Vec<String>>>,
}

impl LocalNode for Recorder {
    fn holds_user(&self, user: &str) -> bool {
        self.users.lock().unwrap().contains(user)
    }

    fn holds_room(&self, room: &str) -> bool {
        self.rooms.lock().unwrap().contains(room)
    }

    fn deliver(&self, target: Target<'_>, frame: &Frame) -> usize {
        let name = match target {
            Target::User(user) if self.holds_user(user) => format!("user {user}"),
            Target::Room(room) if self.holds_room(room) => format!("room {room}"),
            Target::Everyone => "everyone".to_owned(),
            Target::User(_) | Target::Room(_) => return 0,
        };
        self.got
            .lock()
            .unwrap()
            .entry(name)
            .or_default()
            .push(frame.as_str().to_owned());
        1
    }
}

struct Node {
    recorder: Arc<Recorder>,
    broker: Box<dyn Broker>,
}

impl Node {
    fn connect(&self, user: &str) {
        self.recorder.users.lock().unwrap().insert(user.to_owned());
        self.broker.user_changed(user);
    }

    fn disconnect(&self, user: &str) {
        self.recorder.users.lock().unwrap().remove(user);
        self.broker.user_changed(user);
    }

    fn join(&self, room: &str) {
        self.recorder.rooms.lock().unwrap().insert(room.to_owned());
        self.broker.room_changed(room);
    }

    async fn publish(&self, target: Target<'_>, text: &str) -> usize {
        self.broker
            .publish(target, &Frame::from(text.to_owned()))
            .await
            .unwrap()
    }

    fn got(&self, name: &str) -> Vec<String> {
        self.recorder
            .got
            .lock()
            .unwrap()
            .get(name)
            .cloned()
            .unwrap_or_default()
    }
}

/// Makes a cluster of the given size.
type MakeCluster = fn(usize) -> Vec<Node>;

async fn a_user_is_reached_on_other_nodes_only(make: MakeCluster) {
    let nodes = make(3);
    nodes[0].connect("u");
    nodes[1].connect("u");
    assert_eq!(nodes[0].publish(Target::User("u"), "x").await, 1);
    assert_eq!(nodes[2].publish(Target::User("u"), "y").await, 2);
    assert_eq!(
        (nodes[0].got("user u"), nodes[1].got("user u")),
        (vec!["y".into()], vec!["x".into(), "y".into()])
    );
}

async fn nobody_is_reached_where_nobody_is(make: MakeCluster) {
    let nodes = make(2);
    nodes[1].connect("u");
    nodes[1].disconnect("u");
    assert_eq!(nodes[0].publish(Target::User("u"), "x").await, 0);
    assert_eq!(nodes[0].publish(Target::User("never"), "x").await, 0);
    assert_eq!(nodes[0].publish(Target::Room("never"), "x").await, 0);
}

async fn a_room_is_published_once_for_each_node(make: MakeCluster) {
    let nodes = make(3);
    nodes[1].join("r");
    nodes[1].join("r");
    nodes[2].join("r");
    assert_eq!(nodes[0].publish(Target::Room("r"), "x").await, 2);
    assert_eq!(nodes[1].got("room r"), ["x"]);
    assert_eq!(nodes[2].got("room r"), ["x"]);
}

async fn everyone_is_every_other_node(make: MakeCluster) {
    let nodes = make(3);
    assert_eq!(nodes[0].publish(Target::Everyone, "x").await, 2);
    assert!(nodes[0].got("everyone").is_empty());
    assert_eq!(nodes[2].got("everyone"), ["x"]);
}

async fn frames_to_one_target_keep_their_order(make: MakeCluster) {
    let nodes = make(2);
    nodes[1].connect("u");
    let sent: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    for text in &sent {
        nodes[0].publish(Target::User("u"), text).await;
    }
    assert_eq!(nodes[1].got("user u"), sent);
}

async fn a_node_that_left_is_neither_reached_nor_well(make: MakeCluster) {
    let nodes = make(2);
    nodes[1].connect("u");
    nodes[1].broker.probe().await.unwrap();
    nodes[1].broker.leave().await;
    assert_eq!(nodes[0].publish(Target::User("u"), "x").await, 0);
    assert!(nodes[1].broker.probe().await.is_err());
    nodes[0].broker.probe().await.unwrap();
}

async fn strange_names_are_only_names(make: MakeCluster) {
    let nodes = make(2);
    let strange = ["a:b", "a b", "{a}", "a\nb", "*", "ä€😀", &"x".repeat(255)];
    for name in strange {
        nodes[1].connect(name);
        assert_eq!(
            nodes[0].publish(Target::User(name), "x").await,
            1,
            "{name:?}"
        );
        assert_eq!(nodes[1].got(&format!("user {name}")), ["x"], "{name:?}");
    }
    assert_eq!(nodes[0].publish(Target::User("a"), "x").await, 0);
}

async fn concurrent_changes_end_at_the_truth(make: MakeCluster) {
    let nodes = Arc::new(make(2));
    let flickers = (0..8).map(|task| {
        let nodes = nodes.clone();
        tokio::task::spawn_blocking(move || {
            for round in 0..500 {
                if (task + round) % 2 == 0 {
                    nodes[1].connect("u")
                } else {
                    nodes[1].disconnect("u")
                }
            }
        })
    });
    futures_util::future::join_all(flickers).await;
    let holds = nodes[1].recorder.holds_user("u");
    assert_eq!(
        nodes[0].publish(Target::User("u"), "x").await,
        usize::from(holds)
    );
}

macro_rules! passes_the_contract {
    ($broker:ident: $make:expr; $($requirement:ident)*) => {
        mod $broker {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $requirement() {
                    super::$requirement($make).await;
                }
            )*
        }
    };
    ($broker:ident: $make:expr) => {
        passes_the_contract! { $broker: $make;
            a_user_is_reached_on_other_nodes_only
            nobody_is_reached_where_nobody_is
            a_room_is_published_once_for_each_node
            everyone_is_every_other_node
            frames_to_one_target_keep_their_order
            a_node_that_left_is_neither_reached_nor_well
            strange_names_are_only_names
            concurrent_changes_end_at_the_truth
        }
    };
}

fn memory_cluster(size: usize) -> Vec<Node> {
    let hub = Arc::new(MemoryHub::default());
    let node = |index: usize| {
        let recorder = Arc::new(Recorder::default());
        let broker = Box::new(MemoryBroker::join(
            hub.clone(),
            &format!("n{index}"),
            recorder.clone(),
        ));
        Node { recorder, broker }
    };
    (0..size).map(node).collect()
}

passes_the_contract!(memory: super::memory_cluster);
