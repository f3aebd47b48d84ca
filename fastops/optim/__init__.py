"""Optimizers, schedules of the learning rate, and clipping of gradients, on any tree of arrays.

    opt = fastops.optim.adam(lr=1e-3)
    state = opt.init(params)
    params, state = opt.update(params, grads, state)

Names, defaults and numbers are those of ``torch.optim``. One pass over memory updates a parameter, its momenta and what else
its optimizer keeps. A learning rate is a number or a schedule, a function of the number of steps before.
"""

from fastops.optim.clip import clip_grad_norm as clip_grad_norm
from fastops.optim.clip import clip_grad_value as clip_grad_value
from fastops.optim.muon import muon as muon
from fastops.optim.optimizer import Optimizer as Optimizer
from fastops.optim.rules import adadelta as adadelta
from fastops.optim.rules import adagrad as adagrad
from fastops.optim.rules import adam as adam
from fastops.optim.rules import adamax as adamax
from fastops.optim.rules import adamw as adamw
from fastops.optim.rules import lion as lion
from fastops.optim.rules import nadam as nadam
from fastops.optim.rules import radam as radam
from fastops.optim.rules import rmsprop as rmsprop
from fastops.optim.rules import sgd as sgd
from fastops.optim.schedules import constant as constant
from fastops.optim.schedules import cosine as cosine
from fastops.optim.schedules import linear_warmup as linear_warmup
from fastops.optim.schedules import one_cycle as one_cycle
from fastops.optim.schedules import sequential as sequential
from fastops.optim.schedules import step_decay as step_decay
