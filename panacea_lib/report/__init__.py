"""What people look at: pictures of fronts and training, and one self-contained page."""

from panacea_lib.report.front_picture import front_picture
from panacea_lib.report.gallery import Picture, evaluation_pictures
from panacea_lib.report.labels_picture import labels_picture, position_bias_picture
from panacea_lib.report.page import report_page
from panacea_lib.report.reward_pictures import (
    calibration_picture,
    correlations_picture,
    reward_models_picture,
)
from panacea_lib.report.slider import slider_data
from panacea_lib.report.training_pictures import curves_picture

__all__ = [
    "Picture",
    "calibration_picture",
    "correlations_picture",
    "curves_picture",
    "evaluation_pictures",
    "front_picture",
    "labels_picture",
    "position_bias_picture",
    "report_page",
    "reward_models_picture",
    "slider_data",
]
