"""gploss searches for loss functions for recommender models.

A loss is a formula over a prediction and its label. A `Grammar` says which formulas there are, a searcher
proposes some, an evaluator trains a model with each of them (`recmodels.LossEvaluator`, or your own `Evaluator`),
and a `SearchResult` holds the best, ready to be called with torch tensors or pasted as source code.

Example:
    >>> loss = ExpressionLoss(Expression.parse("square(label - pred)"))
    >>> print(loss.source())  # doctest: +ELLIPSIS
    import torch
    ...
"""

from gploss.compute.kinds import LOSS_KINDS, Loss, LossKind
from gploss.compute.losses import Losses, LossKernel
from gploss.compute.program import Program
from gploss.language.expression import Expression
from gploss.language.formula import FormulaError
from gploss.language.grammar import Grammar, GrammarError
from gploss.language.operators import OPERATORS, Operator, OperatorError, binary, register_operator, unary
from gploss.language.parsing import ExpressionError, ParseError
from gploss.language.terminals import TERMINALS, Terminal, TerminalError, register_terminal, terminal
from gploss.loss_function import ExpressionLoss, LossFunction
from gploss.registry import Registry, discover, for_workers
from gploss.screening.screening import Reason, Screening, screen
from gploss.search.budget import Budget
from gploss.search.cache import Cache, CacheEntry, CacheError
from gploss.search.checkpoint import Checkpoint, CheckpointError
from gploss.search.evaluation import Evaluation, EvaluationKey, Status
from gploss.search.evaluator import Evaluator
from gploss.search.record import Progress
from gploss.search.result import FoundLoss, ResultError, SearchResult
from gploss.search.reward import BaselineFilter, Reward
from gploss.search.run import StopSearch
from gploss.search.searcher import SEARCHERS, AskTellSearcher, Searcher
from gploss.searchers.genetic import GeneticSearcher
from gploss.searchers.random_search import RandomSearcher
from gploss.tasks import TASKS, Input, NamedLoss, Task
from gploss.tasks.pointwise import LOSSES, POINTWISE

__all__ = [
    "LOSSES",
    "LOSS_KINDS",
    "OPERATORS",
    "POINTWISE",
    "SEARCHERS",
    "TASKS",
    "TERMINALS",
    "AskTellSearcher",
    "BaselineFilter",
    "Budget",
    "Cache",
    "CacheEntry",
    "CacheError",
    "Checkpoint",
    "CheckpointError",
    "Evaluation",
    "EvaluationKey",
    "Evaluator",
    "Expression",
    "ExpressionError",
    "ExpressionLoss",
    "FormulaError",
    "FoundLoss",
    "GeneticSearcher",
    "Grammar",
    "GrammarError",
    "Input",
    "Loss",
    "LossFunction",
    "LossKernel",
    "LossKind",
    "Losses",
    "NamedLoss",
    "Operator",
    "OperatorError",
    "ParseError",
    "Program",
    "Progress",
    "RandomSearcher",
    "Reason",
    "Registry",
    "ResultError",
    "Reward",
    "Screening",
    "SearchResult",
    "Searcher",
    "Status",
    "StopSearch",
    "Task",
    "Terminal",
    "TerminalError",
    "binary",
    "discover",
    "for_workers",
    "register_operator",
    "register_terminal",
    "screen",
    "terminal",
    "unary",
]

discover("gploss.tasks", TASKS)
discover("gploss.searchers", SEARCHERS)
