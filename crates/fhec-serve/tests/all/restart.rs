//! A server that goes away in the middle, in order or not.

use crate::parties::*;
use fhec_protocol::Code;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Clients that ask all the time do not notice that the server was restarted, whichever way it went.
#[test]
fn clients_go_on_after_a_restart() {
    let folder = tempfile::tempdir().expect("folder");
    let server = start(config(folder.path()));
    let address = server.address();
    let (done, enough) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for seed in 1..=4u8 {
            let (done, enough) = (&done, &enough);
            scope.spawn(move || {
                let connection = connect(address);
                let mut person = Person::new(&MLP, seed);
                person.upload(&connection);
                let mut asked = 0;
                while !enough.load(Ordering::Relaxed) || asked < 5 {
                    person.ask(&connection, 0.1 + f64::from(asked));
                    asked += 1;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let wait_for_more = || {
            let until = done.load(Ordering::Relaxed) + 8;
            while done.load(Ordering::Relaxed) < until {
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        wait_for_more();
        // Broken off: nothing is told to anybody.
        drop(server);
        let server = again(folder.path(), address);
        wait_for_more();
        server.end();
        let server = again(folder.path(), address);
        wait_for_more();
        enough.store(true, Ordering::Relaxed);
        server
    });
}

/// Starts on an address that another server has just left.
fn again(folder: &std::path::Path, address: std::net::SocketAddr) -> fhec_serve::Running {
    let service = fhec_serve::Service::open(std::sync::Arc::clone(&MLP), config(folder), crate::plans::token());
    let service = service.expect("service");
    for _ in 0..200 {
        match fhec_serve::Running::start(std::sync::Arc::clone(&service), &address.to_string(), None) {
            Ok(running) => return running,
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    panic!("{address} is never free again");
}

#[test]
fn a_server_that_ends_says_so() {
    let folder = tempfile::tempdir().expect("folder");
    let mut settings = config(folder.path());
    settings.grace = Duration::from_secs(20);
    let server = start(settings);
    let address = server.address();
    let connection = connect(address);
    let mut person = Person::new(&MLP, 1);
    person.upload(&connection);
    // A result that nobody fetched keeps the server alive for its time of grace. One that is there at once is fetched by the same
    // answer, so several are tried.
    let frame = (0..50).find_map(|i| {
        let (frame, payload, _) = person.question(f64::from(i) + 0.3);
        let body = [&frame.to_bytes()[..], &payload].concat();
        (raw(address, &http("POST", "/v1/requests", &body)).0 == 202).then_some(frame)
    });
    let frame = frame.expect("evaluations take longer than answers");
    while metric(address, "fhec_requests_queued") + metric(address, "fhec_requests_running") > 0.0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let end = std::thread::spawn(move || server.end());
    let until = std::time::Instant::now() + Duration::from_secs(5);
    while raw(address, &http("GET", "/health", &[])).0 != 503 {
        assert!(std::time::Instant::now() < until, "the server never ends");
    }
    let (other, payload, _) = person.question(0.4);
    let (status, answer) = raw(address, &http("POST", "/v1/requests", &[&other.to_bytes()[..], &payload].concat()));
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains(&serde_json::to_string(&Code::Ending).expect("name")), "{answer}");
    let path = format!("/v1/requests/{}/{}/0?wait=5", frame.key, frame.request);
    assert_eq!(raw(address, &http("GET", &path, &[])).0, 200);
    // With it, nothing is left to wait for.
    let since = std::time::Instant::now();
    end.join().expect("ends");
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    assert!(std::net::TcpStream::connect(address).is_err());
}
