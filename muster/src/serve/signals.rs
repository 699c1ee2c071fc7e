//! SIGTERM and SIGINT, from the first moment on: one that comes during the start is not lost.

use anyhow::Context as _;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

pub(super) struct Signals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn listen() -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .build()
            .context("start the signal runtime")?;
        let (terminate, interrupt) = {
            let _inside = runtime.enter();
            let listen = |kind| signal(kind).context("listen for signals");
            (
                listen(SignalKind::terminate())?,
                listen(SignalKind::interrupt())?,
            )
        };
        Ok(Signals {
            runtime,
            terminate,
            interrupt,
        })
    }

    /// Returns when one has come.
    pub(super) fn wait(mut self) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
        });
        Ok(())
    }
}
