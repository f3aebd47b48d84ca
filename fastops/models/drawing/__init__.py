"""A network as a picture: :meth:`fastops.models.Network.draw`, with matplotlib."""

from fastops.models.drawing.paint import check as check
from fastops.models.drawing.paint import draw as draw
from fastops.models.drawing.paint import save as save
