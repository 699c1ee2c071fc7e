//! Defender watches: audit checks over the registry, behaviour profiles over what devices do, and mitigation.
//! It stands beside `ota`, above `broker` (whose counters and denials it reads) and `fleet` (whose registry it
//! audits and whose posture it sets); `control` shows its findings and lets operators act on them.
//! So far it audits: [`audit`] runs checks on demand, each of which says what it looked at and what it found.

pub mod audit;
