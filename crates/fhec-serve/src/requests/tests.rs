//! Requests, their limits and their rounds.

use super::*;
use fhec_protocol::FrameKind;

fn frame(key: u8, request: u8, round: u32) -> Frame {
    Frame {
        kind: FrameKind::Inputs,
        round,
        rounds: 3,
        batch: 1,
        plan: [0; 32],
        key: KeyId([key; 32]),
        request: RequestId([request; 16]),
        payload: 1,
    }
}

fn requests(all: usize, client: usize) -> Requests {
    Requests::new(RequestLimits { all, client, ttl: Duration::from_secs(60), instructions: 7 })
}

fn digest(payload: &str) -> [u8; 32] {
    *blake3::hash(payload.as_bytes()).as_bytes()
}

fn submit(requests: &Requests, key: u8, request: u8, payload: &'static str) -> Result<(), Code> {
    let frame = Frame { rounds: 1, ..frame(key, request, 0) };
    let admission = requests.admit(frame).map_err(|refusal| refusal.code)?;
    requests.submit(admission, payload.into(), digest(payload)).map_err(|refusal| refusal.code)
}

fn ask(requests: &Requests, key: u8, request: u8, round: u32) -> Result<Option<Bytes>, Code> {
    match requests.ask((KeyId([key; 32]), RequestId([request; 16])), round) {
        Ok(Answer::Done(frame)) => Ok(Some(frame)),
        Ok(Answer::Pending(..)) => Ok(None),
        Err(refusal) => Err(refusal.code),
    }
}

/// Does the next task; returns its name.
fn work(requests: &Requests, outcome: Result<&'static str, Code>) -> (u8, u8) {
    let Some(Task::Evaluate { frame, watch, .. }) = requests.next() else { panic!("no request") };
    let outcome = outcome.map(Bytes::from).map_err(|code| refuse(code, ""));
    requests.finish(&frame, &watch, outcome, None);
    (frame.key.0[0], frame.request.0[0])
}

#[test]
fn the_same_request_is_done_once() {
    let r = requests(10, 10);
    assert_eq!(submit(&r, 1, 1, "x"), Ok(()));
    assert_eq!(submit(&r, 1, 1, "x"), Ok(()));
    assert_eq!(submit(&r, 1, 1, "y"), Err(Code::Conflict));
    assert_eq!(r.counts().queued, 1);
    assert_eq!(ask(&r, 1, 1, 0), Ok(None));
    assert_eq!(work(&r, Ok("result")), (1, 1));
    assert_eq!(submit(&r, 1, 1, "x"), Ok(()));
    assert_eq!(r.counts().queued, 0);
    for _ in 0..2 {
        assert_eq!(ask(&r, 1, 1, 0), Ok(Some("result".into())));
    }
    // Another client's request of the same name is another request.
    assert_eq!(ask(&r, 2, 1, 0), Err(Code::UnknownRequest));
    assert_eq!(submit(&r, 2, 1, "y"), Ok(()));
}

#[test]
fn what_failed_may_be_tried_again() {
    let r = requests(10, 10);
    assert_eq!(submit(&r, 1, 1, "x"), Ok(()));
    work(&r, Err(Code::Failed));
    assert_eq!(ask(&r, 1, 1, 0), Err(Code::Failed));
    assert_eq!(submit(&r, 1, 1, "x"), Ok(()));
    work(&r, Ok("result"));
    assert_eq!(ask(&r, 1, 1, 0), Ok(Some("result".into())));
}

#[test]
fn rounds_follow_each_other() {
    let r = requests(10, 10);
    let send = |round: u32| {
        let admission = r.admit(frame(1, 1, round)).map_err(|refusal| refusal.code)?;
        r.submit(admission, "x".into(), digest("x")).map_err(|refusal| refusal.code)
    };
    assert_eq!(send(1), Err(Code::UnknownRequest));
    assert_eq!(send(0), Ok(()));
    // Its result is not there yet.
    assert_eq!(send(1), Err(Code::Conflict));
    work(&r, Ok("values"));
    assert_eq!(send(2), Err(Code::Conflict));
    assert_eq!(send(1), Ok(()));
    assert_eq!(ask(&r, 1, 1, 0), Err(Code::UnknownRequest));
    assert_eq!(send(0), Err(Code::Conflict));
    work(&r, Ok("outputs"));
    assert_eq!(ask(&r, 1, 1, 1), Ok(Some("outputs".into())));
}

#[test]
fn a_round_is_received_once_at_a_time() {
    let r = requests(10, 2);
    let admit = |request, round| r.admit(frame(1, request, round)).map_err(|refusal| refusal.code);
    r.submit(admit(1, 0).expect("room"), "x".into(), digest("x")).expect("taken");
    work(&r, Ok("values"));
    let next = admit(1, 1).expect("the next round");
    // It is no further request.
    assert_eq!(submit(&r, 1, 2, "x"), Ok(()));
    // Neither the same nor what was sent before, but other requests.
    assert_eq!([admit(1, 1).err(), admit(1, 0).err()], [Some(Code::Limited); 2]);
    let other = admit(2, 0).expect("another request");
    assert_eq!(admit(2, 0).err(), Some(Code::Limited));
    // A connection that broke.
    drop(next);
    let next = admit(1, 1).expect("the next round");
    r.submit(next, "y".into(), digest("y")).expect("taken");
    drop(other);
    let again = admit(1, 1).expect("sent again");
    r.submit(again, "y".into(), digest("y")).expect("the same");
    let table = r.table();
    assert!(table.again.is_empty() && table.receiving.is_empty());
}

#[test]
fn what_waits_for_its_next_round_keeps_its_place() {
    let r = requests(2, 1);
    let admission = r.admit(frame(1, 1, 0)).expect("room");
    r.submit(admission, "x".into(), digest("x")).expect("taken");
    work(&r, Ok("values"));
    assert_eq!(ask(&r, 1, 1, 0), Ok(Some("values".into())));
    assert_eq!(submit(&r, 1, 2, "x"), Err(Code::Limited));
    assert_eq!(submit(&r, 2, 1, "x"), Ok(()));
    assert_eq!(submit(&r, 3, 1, "x"), Err(Code::Busy));
    r.sweep(Instant::now() + Duration::from_secs(61));
    assert_eq!(submit(&r, 1, 2, "x"), Ok(()));
}

#[test]
fn limits_hold_for_each_and_for_all() {
    let r = requests(3, 2);
    assert_eq!(submit(&r, 1, 1, "x"), Ok(()));
    assert_eq!(submit(&r, 1, 2, "x"), Ok(()));
    assert_eq!(submit(&r, 1, 3, "x"), Err(Code::Limited));
    assert_eq!(submit(&r, 2, 1, "x"), Ok(()));
    assert_eq!(submit(&r, 3, 1, "x"), Err(Code::Busy));
    assert_eq!(r.admit(frame(3, 1, 0)).map_err(|e| e.code).err(), Some(Code::Busy));
    // Turns: the second client does not wait for all of the first one.
    assert_eq!([(); 3].map(|()| work(&r, Ok("result"))), [(1, 1), (2, 1), (1, 2)]);
    // Results that nobody fetched count; those that were fetched make room.
    assert_eq!(submit(&r, 3, 1, "x"), Err(Code::Busy));
    assert_eq!(ask(&r, 1, 1, 0), Ok(Some("result".into())));
    assert_eq!(submit(&r, 3, 1, "x"), Ok(()));
    assert_eq!(ask(&r, 1, 1, 0), Err(Code::UnknownRequest));
    assert_eq!(ask(&r, 1, 2, 0), Ok(Some("result".into())));
    assert_eq!(r.counts(), Counts { queued: 1, running: 0, unfetched: 1, fetched: 1 });
}

#[test]
fn what_is_being_received_counts() {
    let r = requests(3, 2);
    let admit = |key, request| r.admit(frame(key, request, 0)).map_err(|refusal| refusal.code);
    let (first, second) = (admit(1, 1).expect("room"), admit(1, 2).expect("room"));
    assert_eq!(admit(1, 3).err(), Some(Code::Limited));
    let third = admit(2, 1).expect("room");
    assert_eq!(admit(3, 1).err(), Some(Code::Busy));
    // A connection that broke.
    drop(second);
    r.submit(first, "x".into(), digest("x")).expect("taken");
    let again = admit(1, 1).expect("the same request");
    r.submit(again, "x".into(), digest("x")).expect("the same request");
    drop(third);
    assert_eq!(submit(&r, 1, 3, "x"), Ok(()));
    assert_eq!(submit(&r, 2, 2, "x"), Ok(()));
    assert!(r.table().receiving.is_empty());
}

#[test]
fn what_nobody_asks_for_expires_but_for_what_runs() {
    let r = requests(10, 10);
    for request in 1..=3 {
        assert_eq!(submit(&r, 1, request, "x"), Ok(()));
    }
    work(&r, Ok("result"));
    let Some(Task::Evaluate { frame, watch, .. }) = r.next() else { panic!("no request") };
    r.sweep(Instant::now() + Duration::from_secs(59));
    assert_eq!(r.counts(), Counts { queued: 1, running: 1, unfetched: 1, fetched: 0 });
    r.sweep(Instant::now() + Duration::from_secs(61));
    assert_eq!(r.counts(), Counts { queued: 0, running: 1, unfetched: 0, fetched: 0 });
    r.finish(&frame, &watch, Ok("result".into()), None);
    assert_eq!(ask(&r, 1, 2, 0), Ok(Some("result".into())));
}

#[test]
fn what_is_being_received_for_does_not_expire() {
    let r = requests(10, 10);
    assert_eq!(submit(&r, 1, 1, "x"), Ok(()));
    work(&r, Ok("result"));
    let late = || Instant::now() + Duration::from_secs(61);
    let admission = r.admit(frame(1, 1, 0)).expect("the same request");
    r.sweep(late());
    assert_eq!(r.counts().unfetched, 1);
    drop(admission);
    r.sweep(Instant::now() + Duration::from_secs(59));
    assert_eq!(r.counts().unfetched, 1);
    r.sweep(late());
    assert_eq!(r.counts().unfetched, 0);
}

#[test]
fn an_end_lets_what_runs_finish() {
    let r = requests(10, 10);
    assert_eq!(submit(&r, 1, 1, "x"), Ok(()));
    assert_eq!(submit(&r, 1, 2, "x"), Ok(()));
    let Some(Task::Evaluate { frame, watch, .. }) = r.next() else { panic!("no request") };
    r.close();
    assert!(r.next().is_none());
    assert_eq!(submit(&r, 1, 3, "x"), Err(Code::Ending));
    assert_eq!(ask(&r, 1, 2, 0), Err(Code::UnknownRequest));
    r.finish(&frame, &watch, Ok("result".into()), None);
    assert_eq!(ask(&r, 1, 1, 0), Ok(Some("result".into())));
}

#[test]
fn a_request_that_was_forgotten_while_it_ran_leaves_nothing() {
    let r = requests(10, 10);
    assert_eq!(submit(&r, 1, 1, "x"), Ok(()));
    let Some(Task::Evaluate { frame, watch, .. }) = r.next() else { panic!("no request") };
    r.forget((frame.key, frame.request));
    assert_eq!(submit(&r, 1, 1, "y"), Ok(()));
    r.finish(&frame, &watch, Ok("of x".into()), None);
    assert_eq!(ask(&r, 1, 1, 0), Ok(None));
    work(&r, Ok("of y"));
    assert_eq!(ask(&r, 1, 1, 0), Ok(Some("of y".into())));
}
