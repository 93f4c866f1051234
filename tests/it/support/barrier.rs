//! A proxy before a registry that holds the first matching request until the test releases it, so that a test can act
//! in the middle of a transfer without guessing the moment.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

/// Dropping it closes its connections and ends its threads.
pub struct Barrier {
    host: String,
    held: mpsc::Receiver<()>,
    open: Mutex<Option<mpsc::Sender<()>>>,
    over: Arc<AtomicBool>,
}

struct Shared {
    registry: String,
    /// The text the request must contain, such as `GET /v2/a/blobs/`.
    wanted: String,
    used: AtomicBool,
    held: Mutex<mpsc::Sender<()>>,
    opened: Mutex<mpsc::Receiver<()>>,
}

impl Barrier {
    /// Before `registry` (`host:port`, plain HTTP), for the first request that contains `wanted`.
    pub fn before(registry: &str, wanted: &str) -> Barrier {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let host = listener.local_addr().expect("its address").to_string();
        let ((held, is_held), (open, opened)) = (mpsc::channel(), mpsc::channel());
        let shared = Arc::new(Shared {
            registry: registry.to_owned(),
            wanted: wanted.to_owned(),
            used: AtomicBool::new(false),
            held: Mutex::new(held),
            opened: Mutex::new(opened),
        });
        let over = Arc::new(AtomicBool::new(false));
        let ended = over.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let shared = shared.clone();
                std::thread::spawn(move || shared.connect(client));
            }
        });
        Barrier { host, held: is_held, open: Mutex::new(Some(open)), over }
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns when the barrier holds a request.
    pub fn wait(&self) {
        self.held.recv().expect("a request at the barrier");
    }

    /// Lets the request through.
    pub fn open(&self) {
        self.open.lock().expect("the barrier").take();
    }
}

impl Drop for Barrier {
    fn drop(&mut self) {
        self.open();
        self.over.store(true, Ordering::SeqCst);
        // Wakes the listener so that it ends.
        let _ = TcpStream::connect(&self.host);
    }
}

impl Shared {
    fn connect(&self, client: TcpStream) {
        let Ok(server) = TcpStream::connect(&self.registry) else { return };
        let (from_server, to_client) = (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
        let answers = std::thread::spawn(move || forward(from_server, to_client, |_| ()));
        forward(client, server, |bytes| self.hold(bytes));
        let _ = answers.join();
    }

    fn hold(&self, bytes: &[u8]) {
        let fits = bytes.windows(self.wanted.len()).any(|window| window == self.wanted.as_bytes());
        if fits && !self.used.swap(true, Ordering::SeqCst) {
            let _ = self.held.lock().expect("the barrier").send(());
            // Returns an error when the barrier opens: nothing is ever sent.
            let _ = self.opened.lock().expect("the barrier").recv();
        }
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, before: impl Fn(&[u8])) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut buffer) {
        before(&buffer[..read]);
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
