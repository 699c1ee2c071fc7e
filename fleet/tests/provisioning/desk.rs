//! The desk: what one claim's share of it is.

use super::*;

/// Longest wait for something that happens on another thread; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks for a certificate on a request that is not understood, so that nothing is made.
fn ask(
    desk: &ProvisioningDesk,
    claim: CertificateId,
    payload: &[u8],
    reply: impl FnOnce(ProvisioningAnswer) + Send + 'static,
) {
    desk.ask(ProvisioningRequest {
        claim,
        client_id: "c".into(),
        source: None,
        topic: "$aws/certificates/create-from-csr/json".into(),
        payload: payload.to_vec(),
        reply: Box::new(reply),
    });
}

fn status(answers: &Receiver<ProvisioningAnswer>) -> u64 {
    let answer = answers.recv_timeout(PATIENCE).unwrap();
    let value: Value = serde_json::from_slice(&answer.payload).unwrap();
    value["statusCode"].as_u64().unwrap()
}

#[test]
fn one_claim_has_its_share_of_the_desk_and_the_others_are_answered() {
    const ASKED: usize = 5_000;
    let house = house(lamp(json!({})));
    let hook = Arc::new(Says::new(Ok(json!({}))));
    let desk = ProvisioningDesk::start(house.fleet.clone(), hook, "local".into()).unwrap();
    let (loud, quiet) = (house.claim(None).id, house.claim(None).id);
    // Every thread waits while it answers.
    let (holds, held) = channel();
    let mut releases = Vec::new();
    for _ in 0..4 {
        let (release, released) = channel::<()>();
        let holds = holds.clone();
        ask(&desk, loud, b"{}", move |_| {
            holds.send(()).unwrap();
            let _ = released.recv();
        });
        releases.push(release);
    }
    for _ in 0..4 {
        held.recv_timeout(PATIENCE).unwrap();
    }
    let tell = |claim, payload: &[u8], count| {
        let (tell, answers) = channel();
        for _ in 0..count {
            let tell = tell.clone();
            ask(&desk, claim, payload, move |answer| drop(tell.send(answer)));
        }
        answers
    };
    let many = tell(loud, b"{}", ASKED);
    let few = tell(quiet, b"{}", 5);
    // What is too long to be read is answered though no thread is free.
    assert_eq!(status(&tell(quiet, &[b' '; 70_000], 1)), 400);
    drop(releases);
    assert_eq!([(); 5].map(|()| status(&few)), [400; 5]);
    let answers: Vec<u64> = (0..ASKED).map(|_| status(&many)).collect();
    let count = |code| answers.iter().filter(|status| **status == code).count();
    // The four that were held had no seat any more: whoever is answered may ask again.
    assert_eq!((count(400), count(429)), (1_024, ASKED - 1_024));
}

/// A hook that says nothing until it is let go.
struct Silent {
    asked: Mutex<std::sync::mpsc::Sender<()>>,
    release: Mutex<Receiver<()>>,
}

impl HookCaller for Silent {
    fn call(&self, _: &str, _: Option<&str>, _: &Value, _: Duration) -> Result<Value, String> {
        self.asked.lock().unwrap().send(()).unwrap();
        let _ = self.release.lock().unwrap().recv();
        Err("nothing was said".into())
    }
}

#[test]
fn a_hook_that_says_nothing_holds_up_its_own_template_alone() {
    let house = house(lamp(json!({})));
    let hooked = TemplateChange {
        hook: Some(Some(Hook::parse("https://hook.example/x", None).unwrap())),
        ..TemplateChange::default()
    };
    house
        .fleet
        .update_provisioning_template(&house.template(), &hooked, house.now)
        .unwrap();
    let (asked, asks) = channel();
    let (release, released) = channel();
    let hook = Arc::new(Silent {
        asked: Mutex::new(asked),
        release: Mutex::new(released),
    });
    let desk = ProvisioningDesk::start(house.fleet.clone(), hook, "local".into()).unwrap();
    let claim = house.claim(None).id;
    let (tell, answers) = channel();
    let register = |token: String| {
        let tell = tell.clone();
        let asked =
            json!({"certificateOwnershipToken": token, "parameters": {"SerialNumber": "1"}});
        desk.ask(ProvisioningRequest {
            claim,
            client_id: "c".into(),
            source: None,
            topic: "$aws/provisioning-templates/lamps/provision/json".into(),
            payload: asked.to_string().into_bytes(),
            reply: Box::new(move |answer| drop(tell.send(answer))),
        });
    };
    // More than the desk has threads, and than wait at the hook.
    for _ in 0..12 {
        register(house.pending(&claim).1);
    }
    asks.recv_timeout(PATIENCE).unwrap();
    // Whoever asks for something else is answered meanwhile: of the same claim, and of another.
    for claim in [claim, house.claim(None).id] {
        let (tell, made) = channel();
        desk.ask(ProvisioningRequest {
            claim,
            client_id: "d".into(),
            source: None,
            topic: "$aws/certificates/create/json".into(),
            payload: b"{}".to_vec(),
            reply: Box::new(move |answer| drop(tell.send(answer))),
        });
        let answer = made.recv_timeout(PATIENCE).unwrap();
        assert!(answer.topic.ends_with("/accepted"), "{answer:?}");
    }
    assert!(
        answers.try_recv().is_err(),
        "nobody was answered at the hook"
    );
    drop(release);
    for _ in 0..12 {
        let answer = answers.recv_timeout(PATIENCE).unwrap();
        assert!(answer.topic.ends_with("/rejected"), "{answer:?}");
    }
}
