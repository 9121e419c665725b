//! Many clients at once, some of which vanish and some of which send nonsense.

use crate::parties::*;
use fhec_serve::Config;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};

const CLIENTS: u8 = 50;
/// Requests of each client: 1000 in all.
const EACH: usize = 20;
/// Memory allowed.
const MEMORY: u64 = 256 << 20;

/// A client that vanishes: in the middle of its request, or before it reads the answer.
fn vanish(address: SocketAddr, person: &mut Person, at: usize) {
    let (frame, payload, _) = person.question(at as f64 + 0.7);
    let all = http("POST", "/v1/requests?wait=5", &[&frame.to_bytes()[..], &payload].concat());
    let part = [all.len() / 2, all.len(), 60, all.len() - 1][at % 4];
    let mut stream = TcpStream::connect(address).expect("connects");
    // It may be refused meanwhile, for others of its kind fill the client's share.
    let _ = stream.write_all(&all[..part]);
}

/// A client that sends nonsense, and is refused.
fn babble(address: SocketAddr, person: &mut Person, at: usize) {
    let (frame, mut payload, _) = person.question(at as f64 + 0.9);
    let mut head = frame.to_bytes();
    match at % 4 {
        0 => payload.iter_mut().for_each(|b| *b = b.wrapping_mul(31).wrapping_add(7)),
        1 => head[40] ^= 255,
        2 => payload.truncate(payload.len() / 3),
        _ => {
            let last = payload.len() - 40;
            payload[last] ^= 4;
        }
    }
    let (status, answer) = raw(address, &http("POST", "/v1/requests?wait=20", &[&head[..], &payload].concat()));
    // Or turned away while others fill the places, or forgotten at once to make room.
    assert!([400, 404, 422, 429, 503].contains(&status), "{status} {answer}");
}

#[test]
fn every_good_request_of_a_crowd_is_answered_rightly() {
    let folder = tempfile::tempdir().expect("folder");
    let server = start(Config { memory: MEMORY, requests: 64, requests_per_client: 4, ..config(folder.path()) });
    let address = server.address();
    let before = peak_memory();
    let good: usize = std::thread::scope(|scope| {
        let client = |number: u8| {
            scope.spawn(move || {
                let connection = connect(address);
                let mut person = Person::new(&MLP, number + 1);
                person.upload(&connection);
                let mut good = 0;
                for i in 0..EACH {
                    match (i + usize::from(number)) % 10 {
                        3 => vanish(address, &mut person, i / 10 + usize::from(number)),
                        7 => babble(address, &mut person, i / 10 + usize::from(number)),
                        _ => {
                            person.ask(&connection, i as f64 + f64::from(number) / 64.0);
                            good += 1;
                        }
                    }
                }
                good
            })
        };
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        clients.into_iter().map(|c| c.join().expect("a client failed")).sum()
    });
    assert_eq!(good, usize::from(CLIENTS) * EACH * 8 / 10);
    assert_eq!(metric(address, "fhec_panics_total"), 0.0);
    assert!(metric(address, "fhec_evaluation_seconds_count") >= good as f64);
    assert!(metric(address, "fhec_results") <= 64.0);
    // The clients are in this process too: keys and threads of all of them fit into as much again.
    if let (Some(before), Some(after)) = (before, peak_memory()) {
        assert!(after - before < 2 * MEMORY, "{} bytes more", after - before);
    }
    server.end();
}

/// Most bytes that this process had, where the system says.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}
