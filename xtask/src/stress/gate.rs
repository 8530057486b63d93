//! A gate before the discovery service: it hands each request on, and at a chosen one it strikes - the caller is
//! killed before the request is handed on, or after it was carried out and before its answer is heard, or just after.

use crate::http::{self, Connection, Request};
use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Around which moment of a request the caller dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// The discovery service never hears of it.
    Before,
    /// It is carried out, and the caller never learns.
    Unanswered,
    /// The caller may have read the answer.
    Answered,
}

impl Moment {
    pub(super) const ALL: [Self; 3] = [Self::Before, Self::Unanswered, Self::Answered];
}

/// Who dies, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strike {
    pub(super) victim: Pid,
    /// Which request of the victim, counted from 1.
    pub(super) request: usize,
    pub(super) moment: Moment,
}

/// A listener that hands requests on.
pub(super) struct Gate {
    pub(super) address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    strike: Option<Strike>,
    /// Method and path of each request so far.
    requests: Vec<String>,
    has_struck: bool,
}

impl Gate {
    /// Opens the gate; it closes with the program.
    pub(super) fn open(service: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let gate = Self {
            address: listener.local_addr()?,
            shared: Arc::default(),
        };
        let shared = Arc::clone(&gate.shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // A caller that hangs up, or is killed, ends its thread.
                thread::spawn(move || pass(stream, service, &shared).ok());
            }
        });
        Ok(gate)
    }

    pub(super) fn arm(&self, strike: Strike) {
        self.shared().strike = Some(strike);
    }

    pub(super) fn has_struck(&self) -> bool {
        self.shared().has_struck
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.shared().requests.clone()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Its fields are whole after every line.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pass(stream: TcpStream, service: SocketAddr, shared: &Mutex<Shared>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let mut onward = Connection::open(service)?;
    onward.wait_longer()?;
    while let Some(request) = Request::read(&mut stream)? {
        let number = {
            let mut shared = lock(shared);
            shared
                .requests
                .push(format!("{} {}", request.method, request.path));
            shared.requests.len()
        };
        if strikes(shared, number, Moment::Before) {
            return Ok(());
        }
        let answer = onward.hand_on(&request)?;
        if strikes(shared, number, Moment::Unanswered) {
            return Ok(());
        }
        stream.get_mut().write_all(&http::rendered(&answer))?;
        if strikes(shared, number, Moment::Answered) {
            return Ok(());
        }
    }
    Ok(())
}

/// Kills the victim when this is the moment.
fn strikes(shared: &Mutex<Shared>, number: usize, moment: Moment) -> bool {
    let mut shared = lock(shared);
    let is_it = |strike: &Strike| strike.request == number && strike.moment == moment;
    let Some(strike) = shared.strike.filter(is_it) else {
        return false;
    };
    // It may have ended by itself, which the caller sees.
    kill_process(strike.victim, Signal::KILL).ok();
    shared.has_struck = true;
    true
}
