"""A build step that pyproject.toml cannot describe: files of the top level go into the package.

The wheel has data_manifest.csv and notebooks/ under palmkit/share, so `palmkit fetch` and
`palmkit notebooks` work outside of a checkout. An editable install reads them where they are.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHARED = ("data_manifest.csv", "notebooks/**/*.ipynb", "notebooks/data/*.csv")


class BuildWithShared(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for source, copy in self.shared_files().items():
            copy.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(source), str(copy))

    def get_outputs(self, include_bytecode=True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *map(str, self.shared_files().values())]

    def shared_files(self) -> dict[Path, Path]:
        """Each file of the checkout and its copy in the build folder; no editor's backups."""
        share = Path(self.build_lib) / "palmkit" / "share"
        found = [path for pattern in SHARED for path in sorted(ROOT.glob(pattern))]
        names = [path.relative_to(ROOT) for path in found if ".ipynb_checkpoints" not in path.parts]
        return {ROOT / name: share / name for name in names}


setup(cmdclass={"build_py": BuildWithShared})
