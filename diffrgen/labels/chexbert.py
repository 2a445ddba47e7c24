"""CheXbert (Smit 2020): the BERT labeler that the field's clinical scores are computed with, by its published weights.

The checkpoint and BERT's vocabulary are the user's own files; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Encoding
from tokenizers.implementations import BertWordPieceTokenizer
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import BertConfig

from diffrgen.errors import DataError
from diffrgen.labels.chexbert_network import load_chexbert
from diffrgen.labels.findings import FINDINGS


class CheXbertLabeler:
    """Callable of the protocol `Labeler`.

    Texts are read as the release reads them: white space made single blanks, BERT's lower-case tokens, the first 510
    kept. NOTE: so is a text without a word, as [CLS] [SEP] alone; the release gives it the output of the network.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        vocabulary: str | Path,
        *,
        batch_size: int = 32,
        device: torch.device | str | None = None,
        progress: bool = True,
    ) -> None:
        """Load chexbert.pth and the vocabulary of BERT-base-uncased: its vocab.txt, or the folder that holds it.

        device: default the GPU where there is one. Raises DataError if a file is missing or holds something else.
        """
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.batch_size, self.progress = batch_size, progress
        self.network = load_chexbert(Path(checkpoint)).to(self.device)
        self.tokenizer = read_vocabulary(Path(vocabulary), self.network.bert.config)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the states of `FINDINGS` in each text, (len(texts), 14) int64.

        Raises ValueError for a single string.
        """
        if isinstance(texts, str):
            raise ValueError("expected a list of report texts, got one string: put it into a list")
        tokens = self.tokenizer.encode_batch([" ".join(text.split()) for text in texts])
        states = np.zeros((len(texts), len(FINDINGS)), dtype=np.int64)
        # Texts of similar length share a batch to reduce padding; the longest come first.
        order = sorted(range(len(texts)), key=lambda row: -len(tokens[row].ids))
        with tqdm(total=len(texts), desc="CheXbert", unit="report", disable=not self.progress, leave=False) as bar:
            for start in range(0, len(order), self.batch_size):
                rows = order[start : start + self.batch_size]
                states[rows] = self._states([tokens[row] for row in rows])
                bar.update(len(rows))
        return states

    @torch.inference_mode()
    def _states(self, tokens: Sequence[Encoding]) -> np.ndarray:
        """Return the states (B, 14) of one batch."""
        ids, mask = (
            pad_sequence([torch.tensor(values) for values in rows], batch_first=True).to(self.device)  # (B, T)
            for rows in ([text.ids for text in tokens], [text.attention_mask for text in tokens])
        )
        return torch.stack([logits.argmax(1) for logits in self.network(ids, mask)], dim=1).cpu().numpy()


def read_vocabulary(path: Path, config: BertConfig) -> BertWordPieceTokenizer:
    """Return the lower-case BERT tokenizer of a vocab.txt, cutting texts to as many tokens as the network has places.

    Raises DataError if there is no vocabulary, or one of another size than the network's.
    """
    file = path / "vocab.txt" if path.is_dir() else path
    try:
        tokenizer = BertWordPieceTokenizer.from_file(str(file), lowercase=True)
    # The tokenizers library raises bare Exception for a file that it cannot read.
    except Exception as error:
        raise DataError(f"{file}: needed the vocab.txt of BERT-base-uncased, got: {error}") from error
    if tokenizer.get_vocab_size() != config.vocab_size:
        raise DataError(
            f"{file}: needed the {config.vocab_size} tokens that CheXbert's weights are for, "
            f"got {tokenizer.get_vocab_size()}; give the vocabulary of BERT-base-uncased"
        )
    tokenizer.enable_truncation(config.max_position_embeddings)
    return tokenizer
