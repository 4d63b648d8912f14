"""What people look at: pictures of fronts and training, and one self-contained page."""

from panacea_lib.report.page import report_page
from panacea_lib.report.picture import curves_picture, front_picture, reward_models_picture

__all__ = ["curves_picture", "front_picture", "report_page", "reward_models_picture"]
