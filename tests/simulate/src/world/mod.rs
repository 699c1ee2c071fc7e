//! The simulation: from one seed the clients, the network, the disk, the clock and the operator,
//! against one broker; every packet that arrives is judged by the model.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use broker::Limits;
use ca::CertificateId;
use fleet::simulated::Standings;
use fleet::{CertificateStatus, StandingNow};
use policy::{NamedPolicy, Policy, Realm};
use store::journal::Options;
use store::journal::simulated::{Faults, MemoryDisk};

mod calm;
mod clients;
mod faults;
mod network;
mod receive;

use crate::client::{Asked, Certain, Client, Connection, Kept, Outgoing, Reply};
use crate::model::{Delivery, Message, Model, NEVER, Peer, Principal, Rules, Span, Subscription};
use crate::plan::Plan;
use crate::server::{Registry, Server};
use crate::wire::{self, Ack, Connect, Packet, Publish, Version, Will};

const ACCOUNT: &str = "000000000000";
/// The longest session expiry the broker grants.
const EXPIRY_MAX_S: u32 = 7 * 24 * 3600;
/// In flight each way, as the broker is told.
const IN_FLIGHT: usize = 20;
/// 2026-01-01.
const EPOCH_MS: u64 = 1_767_225_600_000;
/// Rounds until everything must have come to rest.
const CALM_ROUNDS: usize = 4_000;

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) rng: fastrand::Rng,
    pub(crate) model: Model,
    server: Option<Server>,
    registry: Arc<Registry>,
    certificates: Vec<CertificateId>,
    disk: MemoryDisk,
    faults: Faults,
    clients: Vec<Client>,
    connections: u64,
    lives: u64,
    /// The last reading of the wall clock.
    wall_ms: u64,
    trace: crc32fast::Hasher,
    /// The disk has failed since the last rest.
    failed: bool,
    /// Nothing goes wrong any more.
    calm: bool,
    pub(crate) log: Option<Vec<String>>,
}

type Outcome = Result<(), String>;

impl World {
    pub(crate) fn new(seed: u64, keep_log: bool) -> Result<Self, String> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let plan = Plan::draw(&mut rng);
        let registry = Arc::new(Registry {
            standings: Default::default(),
            realm: Arc::new(Realm::live(ACCOUNT)),
        });
        let certificates: Vec<_> = (0..plan.principals)
            .map(|n| CertificateId::of(format!("certificate {n}").as_bytes()))
            .collect();
        let mut world = Self {
            rng,
            model: Model::default(),
            server: None,
            registry,
            certificates,
            disk: MemoryDisk::default(),
            faults: Faults::default(),
            clients: Vec::new(),
            connections: 0,
            lives: 0,
            wall_ms: EPOCH_MS,
            trace: crc32fast::Hasher::new(),
            failed: false,
            calm: false,
            log: keep_log.then(Vec::new),
            plan,
        };
        world.model.deletes_may_be_lost = world.plan.backlog_bytes < 64 * 1024;
        for _ in 0..world.plan.principals {
            world.model.principals.push(Principal::default());
        }
        for principal in 0..world.plan.principals {
            world.set_rules(principal, Rules::default())?;
        }
        for _ in 0..world.plan.clients {
            world.add_client();
        }
        world.start(EPOCH_MS)?;
        Ok(world)
    }

    fn limits(&self) -> Limits {
        Limits {
            session_inflight_messages: IN_FLIGHT as u16,
            output_bytes: self.plan.output_bytes,
            session_resident_bytes: self.plan.resident_bytes,
            read_share_bytes: self.plan.read_share_bytes,
            turn_work: self.plan.turn_work,
            keep_alive: Duration::from_secs(24 * 3600),
            ..Limits::default()
        }
    }

    fn start(&mut self, now_ms: u64) -> Outcome {
        let options = Options {
            segment_bytes: self.plan.segment_bytes,
            backlog_bytes_max: self.plan.backlog_bytes,
            compact_factor: 2,
            compact_slack_bytes: 3 * u64::from(self.plan.segment_bytes),
        };
        let server = Server::start(
            &self.disk,
            options,
            Arc::clone(&self.registry),
            self.limits(),
            now_ms,
            self.plan.tasks_per_turn,
        );
        self.server = Some(server.map_err(|error| format!("the broker does not start: {error}"))?);
        self.wall_ms = now_ms;
        self.tick();
        Ok(())
    }

    fn server(&mut self) -> &mut Server {
        self.server
            .as_mut()
            .expect("a server runs between two steps")
    }

    /// Begins a step.
    fn tick(&mut self) {
        self.model.step += 1;
        let step = self.model.step;
        if let Some(server) = &self.server {
            server.set_step(step);
            self.wall_ms = server.now_ms();
        }
        self.model.now_ms = self.wall_ms;
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!(
                "{:6} {:10} {}",
                self.model.step,
                self.wall_ms - EPOCH_MS.min(self.wall_ms),
                what()
            ));
        }
    }

    /// What happened, for comparison between two runs of a seed.
    fn note(&mut self, client: usize, bytes: &[u8]) {
        self.trace.update(&self.model.step.to_le_bytes());
        self.trace.update(&[client as u8]);
        self.trace.update(bytes);
    }

    pub(crate) fn trace(&self) -> u32 {
        self.trace.clone().finalize()
    }

    /// The whole of it.
    pub(crate) fn run(&mut self) -> Outcome {
        let outcome = self.live();
        if let (Err(_), Some(server)) = (&outcome, &self.server) {
            let (stats, backlog) = (server.stats(), server.backlog());
            let plan = self.plan.clone();
            self.say(|| format!("{plan:?} {stats:?} {backlog} bytes wait for the disk"));
            for at in 0..self.clients.len() {
                let client = &self.clients[at];
                if let Some(c) = &client.connection {
                    let (up, down, replies) = (c.up.len(), c.link.waiting(), c.replies.len());
                    let (flying, over) = (c.in_flight.len(), c.over);
                    let unread = c.written - c.up.len() as u64 - c.link.read();
                    self.say(|| {
                        format!(
                            "client {at}: {up} bytes to go, {unread} unread by the server, {down} \
                             unread by it, {replies} replies owed, {flying} in flight, over {over}"
                        )
                    });
                }
            }
        }
        outcome
    }

    fn live(&mut self) -> Outcome {
        for _ in 0..self.plan.steps {
            self.tick();
            self.act()?;
            if self.rng.u8(..100) < self.plan.turn_percent {
                let turns = self.rng.usize(1..6);
                self.server().turns(turns);
            }
            self.look()?;
        }
        self.calm()
    }

    fn act(&mut self) -> Outcome {
        let dice = self.rng.u16(..1000);
        let at = self.rng.usize(..self.clients.len());
        match dice {
            0..350 => {
                self.client_acts(at)?;
                if self.rng.u8(..100) < self.plan.prompt_percent {
                    self.carry(at, 1);
                    let turns = self.rng.usize(1..4);
                    self.server().turns(turns);
                    self.read(at, usize::MAX)?;
                }
                Ok(())
            }
            350..560 => {
                let share = self.rng.u8(..4);
                self.carry(at, share);
                Ok(())
            }
            560..760 => {
                let count = if self.rng.u8(..4) == 0 {
                    self.rng.usize(1..60)
                } else {
                    usize::MAX
                };
                self.read(at, count)?;
                let replies = if self.rng.u8(..3) == 0 {
                    self.rng.usize(..4)
                } else {
                    usize::MAX
                };
                self.reply(at, replies);
                Ok(())
            }
            760..870 => {
                self.commit();
                Ok(())
            }
            870..940 => {
                let ms = self.rng.u64(1..100);
                self.pass(ms);
                Ok(())
            }
            940..948 => {
                let most = if self.rng.u8(..6) == 0 { 400 } else { 15 };
                let ms = 1000 * self.rng.u64(1..most);
                self.pass(ms);
                // Before anybody reads: who did not is what it is about.
                self.look()
            }
            948..965 => self.rest(),
            965..975 if self.plan.old_bytes => {
                self.carry_old(at);
                Ok(())
            }
            975..983 if self.plan.rules_change => self.change_rules(),
            983..987 if self.plan.disk_fails => {
                self.faults = match self.rng.u8(..3) {
                    0 => Faults {
                        writes_fail: true,
                        syncs_fail: false,
                    },
                    1 => Faults {
                        writes_fail: false,
                        syncs_fail: true,
                    },
                    _ => Faults::default(),
                };
                let faults = self.faults;
                self.say(|| format!("the disk: {faults:?}"));
                self.disk.set_faults(faults);
                Ok(())
            }
            987..992 if self.plan.crashes => self.crash(),
            992..994 if self.plan.crashes => self.restart(),
            _ => Ok(()),
        }
    }
}
