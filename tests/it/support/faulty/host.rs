//! The common part of both hosts: a listener whose connections pass the rules, the schedule and the token check before
//! a backend answers.

use std::io::{self, BufRead, BufReader};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::message::receive_head;
use super::misbehave::{Then, instead, pause, send, silence, spoil_answer, spoil_request};
use super::rules::{self, Rule, When};
use super::schedule::Schedule;
use super::tokens::Tokens;
use super::traffic::{Meter, Traffic};
use super::{Answer, Fault, Seen, Stage};

/// The size of one read; traffic is counted in these.
const PIECE: usize = 64 * 1024;

/// Answers the requests that passed the checks.
pub(super) trait Backend: Send + Sync {
    /// `before` is the number of earlier requests.
    fn answer(&self, request: &Seen, before: usize) -> Answer;

    /// The rest of this request's body will not arrive.
    fn broken_off(&self, _: &Seen) {}

    /// Whether the log keeps request bodies.
    fn keeps_bodies(&self) -> bool {
        true
    }
}

/// A running host. Closed when dropped.
pub struct Host {
    /// `127.0.0.1:port`
    pub address: String,
    shared: Arc<Shared>,
}

struct Shared {
    backend: Box<dyn Backend>,
    tokens: Option<Tokens>,
    rules: Mutex<Vec<Rule>>,
    schedule: Mutex<Option<Schedule>>,
    seen: Mutex<Vec<Seen>>,
    done: Mutex<Vec<(String, Fault)>>,
    meter: Meter,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    pub(super) fn start(address: &str, tokens: Option<Tokens>, backend: Box<dyn Backend>) -> io::Result<Host> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?.to_string();
        let (rules, schedule, seen, done, meter) = Default::default();
        let shared = Arc::new(Shared { backend, tokens, rules, schedule, seen, done, meter });
        let host = Host { address, shared: shared.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.meter.is_over() {
                    return;
                }
                let shared = shared.clone();
                std::thread::spawn(move || shared.converse(stream));
            }
        });
        Ok(host)
    }

    /// A rule for requests with this method (`*`: any) and this text in path or query. [`When::fault`] completes it.
    pub fn when(&self, method: &str, part: &str) -> When<'_> {
        When::new(self, method, part)
    }

    pub(super) fn add(&self, rule: Rule) {
        lock(&self.shared.rules).push(rule);
    }

    /// Removes all rules.
    pub fn heal(&self) {
        lock(&self.shared.rules).clear();
    }

    /// Random faults from now on, until another schedule or none is set.
    pub fn schedule(&self, schedule: Option<Schedule>) {
        *lock(&self.shared.schedule) = schedule;
    }

    /// Every request so far except pings, oldest first.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).iter().filter(|request| request.target != "/v2/").cloned().collect()
    }

    pub fn count(&self, method: &str, start: &str) -> usize {
        self.seen().iter().filter(|request| request.is(method, start)).count()
    }

    /// The faults so far, by rule or by chance, each with its request.
    pub fn done(&self) -> Vec<(String, Fault)> {
        lock(&self.shared.done).clone()
    }

    pub fn traffic(&self) -> Traffic {
        self.shared.meter.now()
    }

    /// Ends stalled connections.
    pub fn release(&self) {
        self.shared.meter.release();
    }

    /// Waits until `reached`, for `moment` at most; `true` if it was reached.
    pub fn wait(&self, moment: Duration, reached: impl Fn(&Traffic) -> bool) -> bool {
        self.shared.meter.wait(moment, reached)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.shared.meter.end();
        // Wakes the listener so that it ends.
        let _ = TcpStream::connect(&self.address);
    }
}

impl Shared {
    fn converse(&self, stream: TcpStream) {
        let then = {
            let mut reader = BufReader::new(&stream);
            loop {
                match self.one(&stream, &mut reader) {
                    Ok(Then::Goes) if !self.meter.is_over() => {}
                    Ok(then) => break then,
                    Err(_) => break Then::Ends,
                }
            }
        };
        if then == Then::Breaks {
            reset(stream);
        }
    }

    fn one(&self, stream: &TcpStream, reader: &mut impl BufRead) -> io::Result<Then> {
        let Some(mut request) = receive_head(reader)? else { return Ok(Then::Ends) };
        self.meter.add(|counts| counts.requests += 1);
        let fault = self.pick(&request);
        match fault {
            Some(Fault::Hasty(_)) => {}
            Some(Fault::Reset(Stage::RequestBody(at)) | Fault::Stall(Stage::RequestBody(at)))
                if request.length() > 0 =>
            {
                self.read_body(reader, &mut request, at)?;
                self.backend.broken_off(&request);
                self.remember(&request);
                return Ok(match fault {
                    Some(Fault::Stall(_)) => silence(&self.meter),
                    _ => Then::Breaks,
                });
            }
            Some(Fault::Drip(pieces)) if request.length() > 0 => self.sip_body(reader, &mut request, pieces)?,
            _ => self.read_body(reader, &mut request, usize::MAX)?,
        }
        let before = self.remember(&request);
        let mut answer = self.answer(&mut request, fault.as_ref(), before);
        answer.fault = fault.or(answer.fault.take());
        if let Some(fault) = answer.fault.clone() {
            spoil_answer(&fault, &request, &mut answer);
        }
        let then = send(stream, &request.method, &answer, &self.meter)?;
        if let Some(Fault::Hasty(_)) = answer.fault {
            return linger(stream);
        }
        Ok(then)
    }

    fn pick(&self, request: &Seen) -> Option<Fault> {
        let by_rule = rules::pick(&mut lock(&self.rules), request);
        let picked = by_rule.or_else(|| lock(&self.schedule).as_mut()?.pick(request))?;
        lock(&self.done).push((format!("{} {}", request.method, request.target), picked.clone()));
        Some(picked)
    }

    /// Reads the body in this many pieces.
    fn sip_body(&self, reader: &mut impl BufRead, request: &mut Seen, pieces: usize) -> io::Result<()> {
        let size = request.length().div_ceil(pieces.max(1)).max(1);
        while request.body.len() < request.length() && !self.meter.is_over() {
            let limit = request.body.len() + size;
            self.read_body(reader, request, limit)?;
            pause();
        }
        Ok(())
    }

    /// Reads the available body, at most `limit` bytes.
    fn read_body(&self, reader: &mut impl BufRead, request: &mut Seen, limit: usize) -> io::Result<()> {
        let wanted = request.length().min(limit);
        let mut piece = vec![0; PIECE];
        while request.body.len() < wanted {
            let most = PIECE.min(wanted - request.body.len());
            match reader.read(&mut piece[..most]) {
                Ok(read) if read > 0 => {
                    request.body.extend_from_slice(&piece[..read]);
                    self.meter.add(|counts| counts.bytes += read);
                }
                other => {
                    self.backend.broken_off(request);
                    return Err(other.err().unwrap_or(io::ErrorKind::UnexpectedEof.into()));
                }
            }
        }
        Ok(())
    }

    fn remember(&self, request: &Seen) -> usize {
        let mut kept = request.clone();
        if !self.backend.keeps_bodies() {
            kept.body.clear();
        }
        let mut seen = lock(&self.seen);
        seen.push(kept);
        seen.len() - 1
    }

    fn answer(&self, request: &mut Seen, fault: Option<&Fault>, before: usize) -> Answer {
        if let (Some(Fault::ExpireTokens), Some(tokens)) = (fault, &self.tokens) {
            tokens.expire();
        }
        if let Some(Fault::Reset(Stage::Request) | Fault::Stall(Stage::Request)) = fault {
            return Answer::new(0);
        }
        if let Some(answer) = fault.and_then(|fault| instead(fault, request)) {
            return answer;
        }
        if let Some(answer) = self.tokens.as_ref().and_then(|tokens| tokens.answer(request)) {
            return answer;
        }
        if let Some(fault) = fault {
            spoil_request(fault, request);
        }
        self.backend.answer(request, before)
    }
}

/// Sends nothing more, but reads and discards further input so that the client can read the answer: nginx's
/// `lingering_close`, with its timeout.
fn linger(mut stream: &TcpStream) -> io::Result<Then> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    io::copy(&mut stream, &mut io::sink())?;
    Ok(Then::Ends)
}

/// Closes with RST instead of FIN.
fn reset(stream: TcpStream) {
    let socket = tokio::net::TcpSocket::from_std_stream(stream);
    let _ = socket.set_zero_linger();
}
