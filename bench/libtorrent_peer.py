"""A libtorrent peer: libtorrent_peer.py seed|leech|fetch default|tuned TORRENT DIRECTORY IP:PORT [PEER_IP:PORT...]

A seeder prints SEEDING. A leecher prints READY, waits for a line on stdin, fetches, prints DONE when every piece is checked
and written, and goes on seeding. Both run until they are stopped. `fetch` is a leecher that begins at once and ends when it
is done.
"""
import os, sys
import libtorrent as lt

# For a fast local network: TCP only, no encryption, deep request queues, large buffers, slots for all.
TUNED = {
    "enable_outgoing_utp": False, "enable_incoming_utp": False, "out_enc_policy": 2, "in_enc_policy": 2,
    "aio_threads": 4, "hashing_threads": 2, "max_out_request_queue": 3000, "max_allowed_in_request_queue": 4000,
    "request_queue_time": 10, "send_buffer_watermark": 8 << 20, "send_buffer_low_watermark": 1 << 20,
    "send_buffer_watermark_factor": 200, "max_queued_disk_bytes": 256 << 20, "unchoke_slots_limit": 200,
    "connection_speed": 200, "torrent_connect_boost": 100, "no_connect_privileged_ports": False,
    "recv_socket_buffer_size": 4 << 20, "send_socket_buffer_size": 4 << 20, "piece_extent_affinity": True,
    "whole_pieces_threshold": 60, "allow_multiple_connections_per_ip": True,
}


def main():
    role, mode, torrent, directory, listen, *peers = sys.argv[1:]
    settings = {
        "listen_interfaces": listen, "outgoing_interfaces": listen.rsplit(":", 1)[0],
        "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
        **(TUNED if mode == "tuned" else {}),
    }
    known = lt.default_settings()
    settings = {name: value for name, value in settings.items() if name in known}
    kinds = lt.alert.category_t
    settings["alert_mask"] = kinds.status_notification | kinds.error_notification | kinds.storage_notification
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(torrent)
    parameters.save_path = directory
    flags = lt.torrent_flags
    parameters.flags &= ~(flags.auto_managed | flags.paused)
    parameters.flags |= flags.disable_dht | flags.disable_lsd
    if role == "seed":
        parameters.flags |= flags.seed_mode            # the file is known to be whole
    elif role == "leech":
        print("READY", flush=True)
        sys.stdin.readline()
    session = lt.session(settings)
    handle = session.add_torrent(parameters)
    for host, port in (peer.rsplit(":", 1) for peer in peers):
        handle.connect_peer((host, int(port)))
    flushing = said = False
    while True:
        session.wait_for_alert(100)
        for alert in session.pop_alerts():
            if role != "seed" and isinstance(alert, lt.torrent_finished_alert) and not flushing:
                flushing = True
                handle.flush_cache()
            elif flushing and isinstance(alert, lt.cache_flushed_alert) and not said:
                said = True
                print("DONE", flush=True)
                if role == "fetch":
                    os._exit(0)                        # without waiting for the goodbyes
        if role == "seed" and not said and handle.status().is_seeding:
            said = True
            print("SEEDING", flush=True)


main()
