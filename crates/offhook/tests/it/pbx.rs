//! A real SIP proxy and registrar, kamailio, as a child process: extensions register there with a password, and it puts calls through.

use crate::house::LIMIT;
use crate::softphone::free_port;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// The password of every extension.
pub const PASSWORD: &str = "correct horse battery";

/// The PBX.
pub struct Pbx {
    _child: Child,
    folder: TempDir,
    pub address: SocketAddr,
}

impl Pbx {
    /// Switches it on. Extensions register with a password; calls to them are put through from anybody.
    pub async fn start() -> Pbx {
        let folder = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let log = folder.path().join("registered");
        let config = CONFIG.replace("LISTEN", &format!("udp:{address}")).replace("PASSWORD", PASSWORD);
        std::fs::write(folder.path().join("kamailio.cfg"), config).unwrap();
        let errors = std::fs::File::create(&log).unwrap();
        let child = Command::new("kamailio")
            .args(["-DD", "-E", "-m", "32", "-M", "4", "-f"])
            .arg(folder.path().join("kamailio.cfg"))
            .arg("-Y")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .expect("kamailio runs: `make setup` installs it");
        Pbx { _child: child, folder, address }
    }

    /// Waits until an extension has registered.
    pub async fn until_registered(&self, extension: &str) {
        let deadline = Instant::now() + LIMIT;
        let words = format!("registered {extension}");
        loop {
            let log = std::fs::read_to_string(self.folder.path().join("registered")).unwrap_or_default();
            if log.contains(&words) {
                return;
            }
            assert!(Instant::now() < deadline, "{extension} did not register: {log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

const CONFIG: &str = r#"
debug=1
log_stderror=yes
fork=yes
children=2
disable_tcp=yes
auto_aliases=no
listen=LISTEN
mpath="/usr/lib/x86_64-linux-gnu/kamailio/modules/"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
loadmodule "xlog.so"
modparam("usrloc", "db_mode", 0)
modparam("registrar", "min_expires", 30)
request_route {
    if (!mf_process_maxfwd_header("10")) { sl_send_reply("483", "Too Many Hops"); exit; }
    if (is_method("OPTIONS")) { sl_send_reply("200", "OK"); exit; }
    if (is_method("CANCEL")) { if (t_check_trans()) { t_relay(); } exit; }
    if (has_totag()) {
        if (loose_route()) { t_relay(); exit; }
        if (is_method("ACK") && t_check_trans()) { t_relay(); exit; }
        sl_send_reply("404", "Not here"); exit;
    }
    t_check_trans();
    if (is_method("REGISTER")) {
        if (!pv_www_authenticate("pbx", "PASSWORD", "0")) { www_challenge("pbx", "1"); exit; }
        if ($hdr(Expires) == "0") { xlog("L_ERR", "unregistered $tU\n"); } else { xlog("L_ERR", "registered $tU\n"); }
        save("location");
        exit;
    }
    if (is_method("INVITE")) { record_route(); }
    if (!lookup("location")) { sl_send_reply("404", "No such extension"); exit; }
    t_relay();
}
"#;
