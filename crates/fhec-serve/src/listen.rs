//! Connections: accepted within limits, served, and let go when the server ends.

use crate::error::ServeError;
use crate::http::router;
use crate::service::Service;
use crate::stall::Stalling;
use crate::tls;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// How long connections have to end once nothing is left to do.
const FAREWELL: Duration = Duration::from_secs(5);

/// A certificate chain and its private key, both in PEM.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// The certificate of the server, then those that lead to a root.
    pub certificates: &'a [u8],
    /// The private key.
    pub key: &'a [u8],
}

impl std::fmt::Debug for Identity<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// A server at work. Dropped without [`end`](Self::end), it breaks off at once.
#[derive(Debug)]
pub struct Running {
    service: Arc<Service>,
    address: SocketAddr,
    runtime: Option<Runtime>,
    workers: Vec<JoinHandle<()>>,
    /// Becomes true when no more connections are wanted.
    stop: watch::Sender<bool>,
}

impl Running {
    /// Listens on an address and starts the threads that evaluate. With an identity, connections are TLS.
    ///
    /// # Errors
    /// [`ServeError::System`] and [`ServeError::Tls`].
    pub fn start(service: Arc<Service>, address: &str, identity: Option<Identity<'_>>) -> Result<Self, ServeError> {
        let system = |what: String| move |source| ServeError::System { what, source };
        let acceptor = identity.map(|i| tls::acceptor(i.certificates, i.key)).transpose()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(16)
            .thread_name("connections")
            .enable_all()
            .build()
            .map_err(system("cannot start threads".into()))?;
        let listener =
            runtime.block_on(TcpListener::bind(address)).map_err(system(format!("cannot listen on {address}")))?;
        let local = listener.local_addr().map_err(system(format!("cannot listen on {address}")))?;
        let (stop, stopped) = watch::channel(false);
        let door = Door::new(Arc::clone(&service), acceptor);
        runtime.spawn(door.accept(listener, stopped.clone()));
        runtime.spawn(sweep(Arc::clone(&service), stopped));
        let workers = service.start()?;
        Ok(Running { service, address: local, runtime: Some(runtime), workers, stop })
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the process is told to end, by an interrupt or by SIGTERM.
    ///
    /// # Errors
    /// [`ServeError::System`] where signals cannot be waited for.
    pub fn wait_for_signal(&self) -> Result<(), ServeError> {
        let Some(runtime) = &self.runtime else { return Ok(()) };
        let waited = runtime.block_on(signal());
        waited.map_err(|source| ServeError::System { what: "cannot wait for signals".into(), source })
    }

    /// Ends in order: nothing new is taken; what runs is finished, its results can be fetched for a while; then connections are let
    /// go. Uploads stay where they are, what waited is sent again by its clients. A further signal ends at once.
    pub fn end(mut self) {
        self.service.ending.store(true, Ordering::Relaxed);
        self.service.requests.close();
        let Some(runtime) = self.runtime.take() else { return };
        runtime.block_on(async {
            tokio::select! {
                () = self.let_go() => {}
                _ = signal() => {}
            }
        });
        runtime.shutdown_timeout(FAREWELL);
    }

    async fn let_go(&mut self) {
        let pause = || tokio::time::sleep(Duration::from_millis(20));
        while self.workers.iter().any(|worker| !worker.is_finished()) {
            pause().await;
        }
        let until = Instant::now() + self.service.config.grace;
        while self.service.requests.counts().unfetched > 0 && Instant::now() < until {
            pause().await;
        }
        // A receiver that is gone has nothing left to stop.
        let _ = self.stop.send(true);
        self.stop.closed().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.service.ending.store(true, Ordering::Relaxed);
        self.service.requests.close();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Waits for an interrupt or SIGTERM.
async fn signal() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

/// Removes what has expired, every now and then.
async fn sweep(service: Arc<Service>, mut stopped: watch::Receiver<bool>) {
    let shortest = service.config.request_ttl.min(service.config.upload_ttl).min(service.config.key_ttl);
    let period = (shortest / 4).clamp(Duration::from_millis(50), Duration::from_secs(10));
    while tokio::time::timeout(period, stopped.wait_for(|stop| *stop)).await.is_err() {
        service.requests.sweep(Instant::now());
        let owner = Arc::clone(&service);
        // A failure would be a panic, which is told on standard error.
        let _ = tokio::task::spawn_blocking(move || owner.keys.sweep(Instant::now())).await;
    }
}

/// Lets connections in.
struct Door {
    service: Arc<Service>,
    router: Router,
    acceptor: Option<TlsAcceptor>,
    /// Connections open, by address.
    open: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

/// A connection that counts while it is open.
struct Guest {
    service: Arc<Service>,
    open: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.service.open.fetch_sub(1, Ordering::Relaxed);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

impl Door {
    fn new(service: Arc<Service>, acceptor: Option<TlsAcceptor>) -> Self {
        Door { router: router(Arc::clone(&service)), service, acceptor, open: Arc::default() }
    }

    /// Counts a connection, unless there are too many, from everywhere or from its address.
    fn admit(&self, address: IpAddr) -> Option<Guest> {
        let most = self.service.config.connections;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let same = open.get(&address).copied().unwrap_or(0);
        if all >= most || same >= most.div_ceil(2) {
            self.service.metrics.turned_away.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        open.insert(address, same + 1);
        drop(open);
        self.service.metrics.connections.fetch_add(1, Ordering::Relaxed);
        self.service.open.fetch_add(1, Ordering::Relaxed);
        Some(Guest { service: Arc::clone(&self.service), open: Arc::clone(&self.open), address })
    }

    /// Accepts connections until it is stopped, then waits for those that are open.
    async fn accept(self, listener: TcpListener, mut stopped: watch::Receiver<bool>) {
        let graceful = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stopped.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    if let Some(guest) = self.admit(peer.ip()) {
                        // Answers are small or sent as a whole: waiting for more to send only delays them.
                        let _ = stream.set_nodelay(true);
                        let (service, router) = (Arc::clone(&self.service), self.router.clone());
                        let watcher = graceful.watcher();
                        tokio::spawn(serve(service, router, self.acceptor.clone(), stream, guest, watcher));
                    }
                }
                // Too many open files, most likely: it passes.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        drop(listener);
        let _ = tokio::time::timeout(FAREWELL, graceful.shutdown()).await;
    }
}

/// Serves one connection to its end. `guest` counts it until then.
async fn serve(
    service: Arc<Service>,
    router: Router,
    acceptor: Option<TlsAcceptor>,
    stream: TcpStream,
    guest: Guest,
    watcher: Watcher,
) {
    let stall = service.config.stall;
    let stream = Stalling::new(stream, stall);
    match acceptor {
        None => talk(stream, router, stall, watcher).await,
        Some(acceptor) => {
            if let Ok(Ok(stream)) = tokio::time::timeout(stall, acceptor.accept(stream)).await {
                talk(stream, router, stall, watcher).await;
            }
        }
    }
    drop(guest);
}

async fn talk<S>(stream: S, router: Router, stall: Duration, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// Most bytes of a connection's buffers.
    const BUFFER: usize = 128 << 10;
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(stall)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // An error ends this connection and concerns nobody else.
    let _ = watcher.watch(connection).await;
}
