"""Reads the input chunk by chunk, and submits each as part of the batch."""

from jobrunner.bulk.batch import Batch, Item
from jobrunner.bulk.checks import Fault, Schema
from jobrunner.bulk.lines import Lines
from jobrunner.bulk.rows import Format, Row
from jobrunner.bulk.state import State, StateFile
from jobrunner.errors import InputError

CHUNK_ROWS = 1000
CHUNK_CHARACTERS = 4_000_000


class Feed:
    """The input, from the first row that is not written."""

    def __init__(
        self,
        lines: Lines,
        rows: Format,
        batch: Batch,
        state: State,
        state_file: StateFile,
        *,
        skip_invalid: bool,
    ) -> None:
        self._lines, self._batch = lines, batch
        self._state, self._state_file = state, state_file
        self._skip_invalid = skip_invalid
        self._schema = Schema(batch.input_schema())
        self.position = rows.pass_over(state.tally.written)
        self._rows = rows.rows()
        self._in_database = max(state.submitted, batch.last_position() + 1)

    def submit_chunk(self) -> list[Row]:
        """Read rows and submit what was not submitted before; no rows at the end.

        :raises InputError: when a row is not valid, unless those are to be skipped. The rows
            before it are not submitted either, as far as they are of the same chunk.
        """
        start, chunk = self.position, self._read()
        new = [
            Item(position, row.input)
            for position, row in enumerate(chunk, start)
            if not row.fault and position >= self._in_database
        ]
        if new:
            self._state.mark = self._lines.mark()
            self._state.submitted = new[0].position
            self._state_file.save(self._state)
            self._in_database = self._batch.insert(new) + 1
        self.position = start + len(chunk)
        return chunk

    def _read(self) -> list[Row]:
        chunk: list[Row] = []
        characters = 0
        for row in map(self._checked, self._rows):
            if row.fault and not self._skip_invalid:
                raise InputError(f"{self._lines.name}, line {row.line}: {row.fault}")
            chunk.append(row)
            characters += len(row.begun)
            if len(chunk) == CHUNK_ROWS or characters > CHUNK_CHARACTERS:
                break
        return chunk

    def _checked(self, row: Row) -> Row:
        """Find fault with what the model does not take."""
        try:
            if not row.fault:
                self._schema.check(row.input)
        except Fault as fault:
            return row._replace(input="", fault=str(fault))
        return row
