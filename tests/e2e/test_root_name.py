"""A thing may be called as the file of the authority's root is: it keeps its certificate, and the root stays what it is."""

from server import Identity

def test_a_device_called_root_connects_with_what_was_written(server, connect, tmp_path):
    server.cli("device", "create", "root", "--out", str(tmp_path / "root"))
    assert (tmp_path / "root/root.crt").read_bytes() == server.root.read_bytes()
    own = Identity(tmp_path / "root/thing-root.crt", tmp_path / "root/thing-root.key", tmp_path / "root/root.crt", "root")
    assert connect(server, own).publish("dt/root/x", "y") == 0
    (tmp_path / "names.csv").write_text("name\nroot\nlamp\n")
    make = lambda: server.run("device", "create", "--from", str(tmp_path / "names.csv"), "--out", str(tmp_path / "bulk"))
    assert make().returncode != 0, "the server has a root whose key is elsewhere"
    server.cli("device", "delete", "root", "--yes")

    assert "1 devices made, 1 there already" in make().stdout and "0 devices made, 2 there already" in make().stdout
    bulk = tmp_path / "bulk/root"
    assert (bulk / "root.crt").read_bytes() == server.root.read_bytes()
    own = Identity(bulk / "thing-root.crt", bulk / "thing-root.key", bulk / "root.crt", "root")
    assert connect(server, own).publish("dt/root/x", "y") == 0
