//! The list of reads: programs, and of each the options and operands that certainly change nothing.
//!
//! `short` is written as for getopt: a letter, then `:` when a value follows, `?` when one may be joined, `~` when one
//! may be joined or be the next word if that is a number; `#` stands for `-5`. `long` holds names, with `=` or `?` behind
//! them in the same sense. An option is on the list only when it neither writes, executes, connects, signals, loads code
//! nor enters another root, on any implementation that is in use.

/// Words that a value or an operand may be.
#[derive(Clone, Copy, PartialEq)]
pub enum Shape {
    /// None at all.
    None,
    /// Any word.
    Any,
    /// A file whose content the program reads: a device may act when it is opened.
    File,
    /// A word that names no file system by a tag (`LABEL=data`): who looks for one writes what it found into `/run/blkid`.
    Untagged,
    /// One such file: what a second operand names is written.
    OneFile,
    /// Letters, digits and `._:@/,+-`, no `..`.
    Plain,
    /// `+FORMAT`, once.
    Format,
    /// The first is one of these, the others are any.
    First(&'static [&'static str]),
    /// As `First`, and there may be none.
    MaybeFirst(&'static [&'static str]),
}

/// A program, or one verb of a program that has verbs.
pub struct Program {
    /// `df`, `docker network ls`.
    pub name: &'static str,
    /// Options of one letter.
    pub short: &'static str,
    /// Options that are words.
    pub long: &'static str,
    /// Shape of an option's value.
    pub value: Shape,
    /// Shape of an operand.
    pub operand: Shape,
    /// An option without which the program is another: `crontab` without `-l` reads a new table.
    pub needs: Option<char>,
}

const fn program(name: &'static str, short: &'static str, long: &'static str, operand: Shape) -> Program {
    // The list does not say which options name a file to read: no value may be a device.
    let value = match operand {
        Shape::Plain | Shape::Untagged => operand,
        _ => Shape::File,
    };
    Program { name, short, long, value, operand, needs: None }
}

/// Programs whose every word is data.
pub const RAW: &[&str] = &["echo", "test", "true"];

const DATABASES: &[&str] = &[
    "ahosts",
    "ahostsv4",
    "ahostsv6",
    "aliases",
    "ethers",
    "group",
    "hosts",
    "initgroups",
    "netgroup",
    "networks",
    "passwd",
    "protocols",
    "rpc",
    "services",
];

const UNITS: &[&str] = &[
    "cat",
    "get-default",
    "is-active",
    "is-enabled",
    "is-failed",
    "is-system-running",
    "list-dependencies",
    "list-jobs",
    "list-sockets",
    "list-timers",
    "list-unit-files",
    "list-units",
    "show",
    "status",
];

const SUMS: &str = "binary check ignore-missing quiet status strict tag text warn zero";

/// Options of `git log` and `git show` that neither run a program nor write a file.
const LOG: &str = "abbrev? abbrev-commit after= all all-match ancestry-path author= author-date-order before= boundary branches \
                   cherry cherry-mark cherry-pick color? committer= compact-summary date= date-order decorate? diff-filter= dirstat? \
                   extended-regexp find-copies? find-renames? first-parent fixed-strings follow format= full-history \
                   full-index graph grep= ignore-all-space ignore-blank-lines ignore-space-change invert-grep left-only \
                   left-right max-count= max-parents= merges min-parents= name-only name-status no-abbrev-commit no-color \
                   no-decorate no-ext-diff no-merges no-notes no-patch no-renames no-textconv numstat oneline patch \
                   patch-with-stat perl-regexp pickaxe-all pickaxe-regex pretty? raw regexp-ignore-case relative-date \
                   remotes reverse right-only shortstat since= skip= stat? stat-width= summary tags text topo-order \
                   unified= until= walk-reflogs word-diff?";

/// The list. Options that every program has (`--help`, `--version`) are in the parser.
pub const PROGRAMS: &[Program] = &[
    program("basename", "as:z", "multiple suffix= zero", Shape::Any),
    program(
        "cat",
        "AbeEnstTuv",
        "number number-nonblank show-all show-ends show-nonprinting show-tabs squeeze-blank",
        Shape::File,
    ),
    program("cmp", "bi:ln:s", "bytes= ignore-initial= print-bytes quiet silent verbose", Shape::File),
    Program { needs: Some('l'), ..program("crontab", "lu:", "", Shape::None) },
    program(
        "cut",
        "b:c:d:f:nsz",
        "bytes= characters= complement delimiter= fields= only-delimited output-delimiter= zero-terminated",
        Shape::File,
    ),
    program("date", "d:I?r:Ru", "date= debug iso-8601? reference= rfc-3339= rfc-email universal utc", Shape::Format),
    program(
        "df",
        "aB:hHiklmPt:Tvx:",
        "all block-size= exclude-type= human-readable inodes local no-sync output? portability print-type si total type=",
        Shape::Any,
    ),
    program("dirname", "z", "zero", Shape::Any),
    // Not -c, -C, -D, -E and -n, which act on the kernel's buffer and console; not -H, which starts a pager.
    program(
        "dmesg",
        "def:Jkl:L?pPrtTux",
        "color? ctime decode facility= force-prefix json kernel level= noescape nopager notime raw reltime show-delta since= time-format= until= userspace",
        Shape::None,
    ),
    program(
        "du",
        "0abB:cd:DhHklLmPsSt:xX:",
        "all apparent-size block-size= bytes count-links dereference dereference-args exclude= exclude-from= human-readable inodes max-depth= no-dereference null one-file-system separate-dirs si summarize threshold= time? time-style= total",
        Shape::Any,
    ),
    program("env", "0", "null", Shape::None),
    program(
        "findmnt",
        "aAbcCd:DefiJklmM:N:no:O:PrRsS:t:T:uUvxy",
        "all ascii bytes canonicalize df direction= evaluate first-only fstab invert json kernel list mountpoint= mtab nocanonicalize nofsroot noheadings notruncate options= output= output-all pairs pseudo raw real shadowed source= submounts target= task= tree types= uniq verbose verify vfs-all",
        Shape::Untagged,
    ),
    program(
        "free",
        "bghklmtvw",
        "bytes committed gibi giga human kibi kilo lohi mebi mega pebi peta si tebi tera total wide",
        Shape::None,
    ),
    // Not -s and -i: a service that they name is a shared object that is loaded.
    program("getent", "", "", Shape::First(DATABASES)),
    program(
        "grep",
        "A:aB:bC:cd:Ee:Ff:GhHiIlLm:noPqrRsTUvwxyzZ#",
        "after-context= basic-regexp before-context= binary binary-files= byte-offset color? colour? context= count dereference-recursive directories= exclude= exclude-dir= exclude-from= extended-regexp file= files-with-matches files-without-match fixed-strings group-separator= ignore-case include= initial-tab invert-match label= line-buffered line-number line-regexp max-count= no-filename no-group-separator no-ignore-case no-messages null null-data only-matching perl-regexp quiet recursive regexp= silent text with-filename word-regexp",
        Shape::File,
    ),
    program("groups", "", "", Shape::Any),
    program("head", "c:n:qvz#", "bytes= lines= quiet silent verbose zero-terminated", Shape::File),
    program("hostname", "AdfiIs", "all-fqdns all-ip-addresses domain fqdn ip-address long short", Shape::None),
    program("id", "aGgnruzZ", "context group groups name real user zero", Shape::Any),
    // Not --cursor-file, which is written; not what mounts an image or enters a machine.
    program(
        "journalctl",
        "ab~c:efF:g:kmn~No:p:qrS:t:u:U:x",
        "after-cursor= all boot? case-sensitive? catalog cursor= disk-usage dmesg facility= field= fields follow grep= header identifier= lines? list-boots merge no-full no-hostname no-pager no-tail output= output-fields= pager-end priority= quiet reverse show-cursor since= system unit= until= user user-unit= utc",
        Shape::Any,
    ),
    program(
        "last",
        "adFf:in:p:Rs:t:wx#",
        "dns file= fullnames fulltimes hostlast ip limit= nohostname present= since= system time-format= until=",
        Shape::Any,
    ),
    program(
        "ls",
        "aAbBcCdDfFgGhHiI:klLmnNopqQrRsStT:uUvw:xXZ1",
        "all almost-all author block-size= classify? color? context dereference dereference-command-line dereference-command-line-symlink-to-dir directory dired escape file-type format= full-time group-directories-first hide= hide-control-chars human-readable hyperlink? ignore= ignore-backups indicator-style= inode kibibytes literal no-group numeric-uid-gid quote-name quoting-style= recursive reverse show-control-chars si size sort= tabsize= time= time-style= width= zero",
        Shape::Any,
    ),
    program(
        "lsblk",
        "aAbdDe:E:fiI:JlmMno:OpPrsStT?w:x:yz",
        "all ascii bytes dedup= discard exclude= fs include= inverse json list merge nodeps noempty noheadings output= output-all pairs paths perms raw scsi shell sort= topology tree? width= zoned",
        Shape::Any,
    ),
    program(
        "lscpu",
        "aBbcC?e?Jp?xy",
        "all bytes caches? extended? hex json offline online output-all parse? physical",
        Shape::None,
    ),
    program("md5sum", "bctwz", SUMS, Shape::File),
    program("mount", "", "", Shape::None),
    program("nproc", "", "all ignore=", Shape::None),
    // Not a name with `=` or `://`: a whole connection string may name a library for its key.
    program("pg_isready", "d:h:p:qt:U:", "dbname= host= port= quiet timeout= username=", Shape::Plain),
    program(
        "pgrep",
        "aAcd:fF:g:G:ilLnoO:P:r:s:t:u:U:vwx",
        "cgroup= count delimiter= euid= exact full group= ignore-ancestors ignore-case inverse lightweight list-full list-name logpidfile newest ns= nslist= older= oldest parent= pgroup= pidfile= runstates= session= terminal= uid=",
        Shape::Any,
    ),
    program("printenv", "0", "null", Shape::Any),
    program(
        "ps",
        "aAcC:deFfg:G:hHjk:lLmMNO:o:p:q:s:t:Tu:U:wxyZ",
        "cols= columns= context cumulative deselect forest format= group= Group= headers info lines= no-headers no-heading pid= ppid= quick-pid= rows= sid= sort= tty= user= User= width=",
        Shape::Any,
    ),
    program(
        "readlink",
        "efmnqsvz",
        "canonicalize canonicalize-existing canonicalize-missing no-newline quiet silent verbose zero",
        Shape::Any,
    ),
    program(
        "realpath",
        "eLmPqsz",
        "canonicalize-existing canonicalize-missing logical no-symlinks physical quiet relative-base= relative-to= strip zero",
        Shape::Any,
    ),
    program("sha1sum", "bctwz", SUMS, Shape::File),
    program("sha256sum", "bctwz", SUMS, Shape::File),
    program("sha512sum", "bctwz", SUMS, Shape::File),
    // Not -D, which writes; not -K, which ends connections; not -N, which enters a namespace.
    program(
        "ss",
        "046aA:ef:HilmnoOprstTuwxzZ",
        "all cgroup context contexts extended family= info inet-sockopt ipv4 ipv6 listening memory no-header numeric oneline options packet processes query= raw resolve summary tcp threads tos udp unix",
        Shape::Any,
    ),
    program("stat", "c:fLt", "cached= dereference file-system format= printf= terse", Shape::Any),
    // Not -H, -M, --root and --image: another machine, another root.
    program(
        "systemctl",
        "aln:o:p:P:qt:",
        "after all before failed full legend= lines= no-legend no-pager output= plain property= quiet reverse show-types state= system timestamp= type= user value with-dependencies",
        Shape::MaybeFirst(UNITS),
    ),
    program(
        "tail",
        "c:fFn:qs:vz#",
        "bytes= follow? lines= max-unchanged-stats= pid= quiet retry silent sleep-interval= verbose zero-terminated",
        Shape::File,
    ),
    program(
        "uname",
        "aimnoprsv",
        "all hardware-platform kernel-name kernel-release kernel-version machine nodename operating-system processor",
        Shape::None,
    ),
    // A second operand is the file that it writes.
    program(
        "uniq",
        "cdDf:is:uw:z",
        "all-repeated? check-chars= count group? ignore-case repeated skip-chars= skip-fields= unique zero-terminated",
        Shape::OneFile,
    ),
    program("uptime", "ps", "pretty since", Shape::None),
    program(
        "vmstat",
        "adDfmnp:sS:twy",
        "active disk disk-sum forks one-header partition= slabs stats timestamp unit= wide",
        Shape::Any,
    ),
    program("wc", "cLlmw", "bytes chars lines max-line-length total= words", Shape::File),
    program("which", "as", "", Shape::Any),
    program(
        "who",
        "abdHlmpqrsTtuw",
        "all boot count dead heading ips login lookup mesg message process runlevel short time users writable",
        Shape::Any,
    ),
    program("whoami", "", "", Shape::None),
    program("docker container diff", "", "", Shape::Plain),
    program("docker container inspect", "f:s", "format= size", Shape::Any),
    program("docker container logs", "fn:t", "details follow since= tail= timestamps until=", Shape::Any),
    program("docker container ls", "af:ln:qs", "all filter= format= last= latest no-trunc quiet size", Shape::None),
    program("docker container port", "", "", Shape::Plain),
    program("docker diff", "", "", Shape::Plain),
    program("docker history", "Hq", "format= human? no-trunc quiet", Shape::Any),
    program("docker image history", "Hq", "format= human? no-trunc quiet", Shape::Any),
    program("docker image inspect", "f:", "format=", Shape::Any),
    program("docker image ls", "af:q", "all digests filter= format= no-trunc quiet", Shape::Any),
    program("docker images", "af:q", "all digests filter= format= no-trunc quiet", Shape::Any),
    program("docker info", "f:", "format=", Shape::None),
    program("docker inspect", "f:s", "format= size type=", Shape::Any),
    program("docker logs", "fn:t", "details follow since= tail= timestamps until=", Shape::Any),
    program("docker network inspect", "f:v", "format= verbose", Shape::Any),
    program("docker network ls", "f:q", "filter= format= no-trunc quiet", Shape::None),
    program("docker port", "", "", Shape::Plain),
    program("docker ps", "af:ln:qs", "all filter= format= last= latest no-trunc quiet size", Shape::None),
    program("docker stats", "a", "all format= no-stream no-trunc", Shape::Any),
    program("docker system df", "v", "format= verbose", Shape::None),
    program("docker version", "f:", "format=", Shape::None),
    program("docker volume inspect", "f:", "format=", Shape::Any),
    program("docker volume ls", "f:q", "filter= format= quiet", Shape::None),
    // Not --textconv and --filters, which run programs.
    program("git cat-file", "epst", "", Shape::Any),
    // Not --dirty and --broken, which write the index.
    program(
        "git describe",
        "",
        "abbrev? all always candidates= contains exact-match exclude= first-parent long match= tags",
        Shape::Any,
    ),
    program("git log", "bcC?E:FG:gi:mM?n:pP:qrsS:tuU:wz#", LOG, Shape::Any),
    program(
        "git ls-files",
        "cdikmoruszX:x:tv",
        "abbrev? cached deduplicate deleted directory eol error-unmatch exclude= exclude-standard full-name ignored killed modified no-empty-directory others stage unmerged",
        Shape::Any,
    ),
    program("git ls-tree", "dlrtz", "abbrev? full-name full-tree long name-only name-status object-only", Shape::Any),
    program("git merge-base", "a", "all fork-point independent is-ancestor octopus", Shape::Any),
    program(
        "git rev-list",
        "n:#",
        "after= all all-match ancestry-path author= author-date-order before= boundary branches cherry-mark cherry-pick committer= count date-order first-parent full-history grep= left-only left-right max-count= max-parents= merges min-parents= no-merges objects parents remotes reverse right-only since= skip= tags timestamp topo-order until=",
        Shape::Any,
    ),
    // Where the git folder is, is not answered: git works with another one. The superproject has settings of its own.
    program(
        "git rev-parse",
        "q",
        "abbrev-ref? all branches default= is-bare-repository is-inside-work-tree is-shallow-repository path-format= quiet remotes short? show-cdup show-prefix show-toplevel symbolic symbolic-full-name tags verify",
        Shape::Any,
    ),
    program("git show", "bcC?mM?n:pqrsS:tuU:wz#", LOG, Shape::Any),
    program(
        "git status",
        "bsu?z",
        "ahead-behind branch column? find-renames? ignored? long no-ahead-behind no-column no-renames porcelain? renames short show-stash untracked-files?",
        Shape::Any,
    ),
];
