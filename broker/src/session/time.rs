/// A moment in milliseconds, taken by the shell once per wake-up.
///
/// Message expiry survives restarts, so count from the Unix epoch; deadlines must not jump, so never let it run
/// backwards: read the wall clock at start and add a monotonic clock to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Later by so many milliseconds.
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Later by so many seconds.
    #[must_use]
    pub const fn plus_seconds(self, seconds: u32) -> Self {
        self.plus_millis(seconds as u64 * 1000)
    }

    /// Whole seconds from an earlier moment, begun ones counted, as message expiry is told.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> u32 {
        u32::try_from(self.millis_since(earlier).div_ceil(1000)).unwrap_or(u32::MAX)
    }

    /// Milliseconds from an earlier moment; 0 if it is not earlier.
    #[must_use]
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
