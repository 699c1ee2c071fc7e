//! Defender watches: audit checks over the registry, behaviour profiles over what devices do, and mitigation.
//! It stands beside `ota`, above `broker` (whose counters and denials it reads) and `fleet` (whose registry it
//! audits and whose posture it sets); `control` shows its findings and lets operators act on them.
//! It holds no code yet: the room is kept so that nothing of its job settles elsewhere.
