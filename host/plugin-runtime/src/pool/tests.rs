//! Tests the pool of instances: its order, its limits, and its use from many threads.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use super::*;

fn poll<F: Future>(future: &mut Pin<Box<F>>) -> Option<F::Output> {
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(place) => Some(place),
        Poll::Pending => None,
    }
}

fn warm(place: Option<Checkout<u32>>) -> Option<u32> {
    match place {
        Some(Checkout::Warm(instance)) => Some(instance),
        Some(Checkout::Empty) => Some(0),
        Some(Checkout::Refused) => panic!("the line is full"),
        None => None,
    }
}

#[test]
fn waiting_callers_are_served_in_order() {
    let pool = Pool::new(1);
    assert_eq!(warm(pool.take_or_queue().ok()), Some(0));
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(pool.take())).collect();
    for caller in &mut waiting {
        assert!(poll(caller).is_none());
    }
    pool.give_back(7);
    assert!(
        pool.take_or_queue().is_err(),
        "it is the first one's already"
    );
    assert_eq!(warm(poll(&mut waiting[0])), Some(7));
    assert!(poll(&mut waiting[1]).is_none());
    // The instance failed: the next caller may start another one.
    pool.give_up();
    assert_eq!(warm(poll(&mut waiting[1])), Some(0));
    pool.give_back(8);
    assert_eq!(warm(poll(&mut waiting[2])), Some(8));
    assert_eq!(pool.size(), (0, 1));
}

#[test]
fn a_cancelled_caller_frees_its_place() {
    let pool = Pool::new(1);
    assert_eq!(warm(pool.take_or_queue().ok()), Some(0));
    let mut first = Box::pin(pool.take());
    let mut second = Box::pin(pool.take());
    let mut third = Box::pin(pool.take());
    assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
    assert!(poll(&mut third).is_none());
    // The first caller leaves before its turn, the second one during its turn.
    drop(first);
    pool.give_back(7);
    drop(second);
    assert_eq!(warm(poll(&mut third)), Some(7));
    pool.give_back(7);
    assert_eq!(pool.size(), (1, 1));
}

#[test]
fn no_more_instances_exist_than_may() {
    let pool = Pool::<u32>::new(3);
    assert!(pool.take_for_refill(2) && pool.take_for_refill(2));
    assert!(!pool.take_for_refill(2), "two are warm");
    assert!(pool.take_or_queue().is_ok());
    assert!(pool.take_or_queue().is_err(), "three exist");
    pool.give_up();
    assert_eq!(pool.size(), (0, 2));
}

#[test]
fn instances_unused_since_the_last_check_are_released_down_to_the_minimum() {
    let pool = Pool::<u32>::new(5);
    for _ in 0..5 {
        assert!(pool.take_or_queue().is_ok());
    }
    (1..=5).for_each(|instance| pool.give_back(instance));
    assert!(pool.shrink(2).is_empty(), "they were in use until now");
    // Two instances at a time are enough.
    for _ in 0..3 {
        let (first, second) = (pool.take_now().unwrap(), pool.take_now().unwrap());
        pool.give_back(first);
        pool.give_back(second);
    }
    assert_eq!(pool.shrink(2), [1, 2, 3]);
    assert_eq!(pool.size(), (2, 2));
    assert!(pool.shrink(2).is_empty(), "two are kept, whatever they do");
    assert_eq!(pool.shrink(1).len(), 1);
}

#[test]
fn those_that_are_lent_count_among_the_ones_that_are_kept() {
    let pool = Pool::<u32>::new(3);
    for _ in 0..3 {
        assert!(pool.take_or_queue().is_ok());
    }
    pool.give_back(1);
    assert!(pool.shrink(2).is_empty());
    assert_eq!(pool.shrink(2), [1], "two are lent");
    assert_eq!(pool.size(), (0, 2));
}

#[test]
fn the_number_of_waiting_callers_is_bounded_and_cancelled_ones_do_not_count() {
    let pool = Pool::<u32>::new(1);
    assert!(pool.take_or_queue().is_ok());
    let join = || match pool.take_or_queue() {
        Err(waiting) => Some(waiting),
        Ok(Checkout::Refused) => None,
        Ok(_) => panic!("the only one is lent"),
    };
    let mut line: Vec<_> = (0..LINE_MAX).map(|_| join().expect("room")).collect();
    assert!(join().is_none());
    line.truncate(LINE_MAX - 1);
    assert!(join().is_some());
    assert_eq!(pool.size(), (0, 1));
}

#[test]
fn a_thread_reuses_its_last_instance_or_takes_one_of_another_thread() {
    let pool = Pool::<u32>::new(3);
    for instance in 1..=3 {
        assert!(pool.take_or_queue().is_ok());
        if instance < 3 {
            pool.give_back(instance);
        }
        // Taken out again, so that the next one is started.
        if instance < 3 {
            assert_eq!(pool.take_idle(), Some(instance));
        }
    }
    pool.give_back(1);
    std::thread::scope(|scope| {
        scope.spawn(|| pool.give_back(2));
    });
    pool.give_back(3);
    assert_eq!(warm(pool.take_or_queue().ok()), Some(3));
    assert_eq!(warm(pool.take_or_queue().ok()), Some(1));
    assert_eq!(warm(pool.take_or_queue().ok()), Some(2));
    assert_eq!(pool.size(), (0, 3));
}

#[test]
fn instances_and_callers_find_each_other_from_many_threads() {
    let pool = Pool::<u32>::new(2);
    let taken = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    for _ in 0..5_000 {
                        let instance = match pool.take().await {
                            Checkout::Warm(instance) => instance,
                            Checkout::Empty => 0,
                            Checkout::Refused => panic!("the line is full"),
                        };
                        taken.fetch_add(1, Ordering::Relaxed);
                        pool.give_back(instance);
                    }
                });
            });
        }
    });
    assert_eq!(taken.into_inner(), 20_000);
    let (idle, existing) = pool.size();
    assert_eq!(idle, existing, "all came back");
    assert!(existing <= 2);
}
