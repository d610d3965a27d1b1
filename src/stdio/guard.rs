//! What ends our children when we cannot: a shell that reads their groups from a pipe of ours and kills them when the pipe ends.
//!
//! The pipe ends however we end, also by SIGKILL. Why not a death signal: it is set between fork and exec, which takes unsafe code, and
//! reaches the child but not what that has started (`npx` starts three). Why not only the end of the children's input: not every server
//! looks at it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

/// `+ GROUP` and `- GROUP`, a line each. At the end whoever is left is asked to end, and is killed two seconds later.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
groups=' '
while read -r verb group; do
    case $verb in
    +) groups="$groups$group " ;;
    -) case $groups in *" $group "*) groups="${groups%% $group *} ${groups#* $group }" ;; esac ;;
    esac
done
[ -n "${groups# }" ] || exit 0
for group in $groups; do kill -s TERM -- "-$group"; done
sleep 2
for group in $groups; do kill -s KILL -- "-$group"; done
"#;

/// The groups that must not outlive us.
#[derive(Debug, Default)]
pub(super) struct Guard {
    groups: RefCell<BTreeSet<u32>>,
    shell: RefCell<Option<Shell>>,
    warned: Cell<bool>,
}

#[derive(Debug)]
struct Shell {
    process: Option<Child>,
    input: Option<ChildStdin>,
}

impl Guard {
    pub(super) fn add(&self, group: u32) {
        self.groups.borrow_mut().insert(group);
        self.tell(&format!("+ {group}\n"));
    }

    pub(super) fn remove(&self, group: u32) {
        if self.groups.borrow_mut().remove(&group) {
            self.tell(&format!("- {group}\n"));
        }
    }

    fn tell(&self, line: &str) {
        let told = match self.shell.borrow_mut().as_mut().and_then(|shell| shell.input.as_mut()) {
            Some(input) => input.write_all(line.as_bytes()).is_ok(),
            None => false,
        };
        if !told {
            self.begin_anew();
        }
    }

    /// There is no shell yet, or somebody has killed it.
    fn begin_anew(&self) {
        let groups: String = self.groups.borrow().iter().map(|group| format!("+ {group}\n")).collect();
        let begun = Shell::begin().and_then(|mut shell| {
            shell.input.as_mut().map_or(Ok(()), |input| input.write_all(groups.as_bytes()))?;
            Ok(shell)
        });
        match begun {
            Ok(shell) => *self.shell.borrow_mut() = Some(shell),
            Err(error) if !self.warned.replace(true) => {
                tracing::warn!(target: "tidegate::stdio", %error, "no shell can be run that would end the MCP servers if Tidegate is killed; see that /bin/sh is there");
            }
            Err(_) => {}
        }
    }
}

impl Shell {
    fn begin() -> io::Result<Shell> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "tidegate-stdio-guard"]).current_dir("/").process_group(0);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let input = process.stdin.take();
        Ok(Shell { process: Some(process), input })
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.input = None;
        if let Some(mut process) = self.process.take() {
            // It ends by itself; what has ended is waited for where nobody minds.
            std::thread::spawn(move || process.wait());
        }
    }
}
