//! Updates an application of your own: the agent as a part of the program that starts it.
//!
//!     own-application IDENTITY HOST MQTT_PORT HTTPS_PORT STATE
//!
//! IDENTITY holds what `muster device create` wrote, STATE is a directory of this program's own. The image
//! is the application itself, an executable file: `muster firmware sign my-app --name my-app --hardware
//! my-board …`. Each image is asked `IMAGE --self-test` before it is kept; one that does not exit with 0
//! within a minute is never started, and the rollout hears what it wrote to standard error.
//!
//! What this program must not do is decide about images: which one is believed, tried, kept or given up
//! is the agent's to say, and it has said so on the disk before it tells.
//!
//! Ended by a signal it takes the application with it; killed (`kill -9`) it cannot, and its next start runs a second one
//! beside it. Under systemd that does not come about (`KillMode=control-group`, the default); elsewhere let the application
//! hold a lock of its own.

use std::error::Error;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::{Agent, Health, Hooks, Identity, Settings, Slot};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// How long an application that ended by itself is left alone before it is started again.
const PAUSE: Duration = Duration::from_secs(1);

/// The application as it runs: nothing before its first image is confirmed.
#[derive(Default)]
struct Application {
    child: Option<Child>,
}

impl Application {
    /// Starts the image in the place of the one that runs.
    async fn replace(&mut self, image: &Path) -> Result<(), Box<dyn Error>> {
        self.stop().await?;
        // The agent keeps images as data; that this one may run is for its embedder to say.
        std::fs::set_permissions(image, PermissionsExt::from_mode(0o700))?;
        let child = Command::new(image).kill_on_drop(true).spawn()?;
        println!("application started: {}", image.display());
        self.child = Some(child);
        Ok(())
    }

    async fn stop(&mut self) -> Result<(), Box<dyn Error>> {
        match self.child.take() {
            Some(mut child) => Ok(child.kill().await?),
            None => Ok(()),
        }
    }

    /// Ready when the application has ended by itself.
    async fn ended(&mut self) {
        match &mut self.child {
            Some(child) => {
                let _ = child.wait().await;
                self.child = None;
                tokio::time::sleep(PAUSE).await;
            }
            None => std::future::pending().await,
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [identity, server, mqtt, https, state] = &given[..] else {
        return Err("say own-application IDENTITY HOST MQTT_PORT HTTPS_PORT STATE".into());
    };
    let agent = Agent::open(Settings {
        identity: Identity::open(Path::new(identity))?,
        trust: None,
        server: server.clone(),
        mqtt_port: mqtt.parse()?,
        https_port: https.parse()?,
        state: PathBuf::from(state),
        devices: None,
        hardware: "my-board".parse()?,
        components: agent::Components::new(),
        health: Health {
            command: r#"chmod 700 "$MUSTER_IMAGE" && "$MUSTER_IMAGE" --self-test"#.into(),
            deadline: Duration::from_secs(60),
        },
        // Nothing but this program starts images.
        hooks: Hooks::default(),
        health_every: Some(Duration::from_secs(300)),
    })?;
    let (mut status, images) = (agent.status(), [agent.image(Slot::A), agent.image(Slot::B)]);
    let image = |slot: Slot| match slot {
        Slot::A => &images[0],
        Slot::B => &images[1],
    };

    // The agent runs beside; all that connects the two is what it says of its state.
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut updates = tokio::spawn(agent.run(async move {
        let _ = stopped.await;
    }));
    let mut terminate = signal(SignalKind::terminate())?;
    let (mut application, mut runs) = (Application::default(), None);
    status.mark_changed();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            done = &mut updates => return Ok(done??),
            () = application.ended() => runs = None,
            changed = status.changed() => changed?,
        }
        // While an image is on trial, the one before goes on.
        let now = status.borrow_and_update().clone();
        if let (Some(slot), true) = (now.slot, now.confirmed)
            && runs != Some((slot, now.version.clone()))
        {
            application.replace(image(slot)).await?;
            runs = Some((slot, now.version));
        }
    }
    application.stop().await?;
    let _ = stop.send(());
    Ok(updates.await??)
}
