//! A decision on a topic that the connection knows allocates nothing.

#[path = "warm/device.rs"]
mod device;

#[test]
fn a_remembered_decision_allocates_nothing() {
    let (_runtime, mut warm) = device::warm();
    let counted = allocation_counter::measure(|| {
        for _ in 0..100 {
            assert!(warm.may_publish() && warm.is_decided() && warm.may_receive());
        }
    });
    assert_eq!(counted.count_total, 0);
}
